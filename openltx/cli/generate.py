"""``openltx generate``: the flags are the fields of ``GenerationRequest``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.output import free_name, make, open_generator, require_place_for, save, save_contact_sheet
from openltx.cli.two_pass import UpscalerFlags
from openltx.pipelines.loras import LoRAMode
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision


def generate(
    request: Annotated[
        GenerationRequest | None, Parameter(name="*", consume_multiple=True, negative_iterable="")
    ] = None,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    contact_sheet: Path | None = None,
    model: str = "playroom",
    device: Device = "auto",
    precision: Precision = "auto",
    compile: Annotated[bool, Parameter(negative=())] = False,
    lora: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable="")] = (),
    lora_mode: LoRAMode = "auto",
    two_pass: Annotated[UpscalerFlags | None, Parameter(name="*", consume_multiple=True, negative_iterable="")] = None,
    text_encoder: Path | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Make a video from a prompt, or from a picture and a prompt.

    What is left open is as the model prefers. The request is embedded in the file: `openltx inspect FILE` shows it.

    Parameters
    ----------
    output
        The file to write: .mp4, .gif, .webp, or .png for single frames. Named after prompt and seed if left out.
    contact_sheet
        Also write some frames side by side into this picture.
    model
        "playroom" (bundled), or the path of a weight file.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    precision
        Number format; auto takes bfloat16 where the hardware computes in it, else float32. int8 is for CPUs: half the
        memory of bfloat16 in the transformer's blocks.
    compile
        Let torch.compile fuse the transformer's blocks (accelerators only): the first step waits for it.
    lora
        LoRA files, FILE or FILE:STRENGTH, as many as you like. Strength 1 is as trained, below 0 leads away from it.
    lora_mode
        merged: add LoRAs to the weights; applied: compute them beside the weights, which costs time and rounds no
        weight; auto: applied with int8, else merged.
    text_encoder
        The folder or file of a T5 v1.1 encoder (.safetensors or .gguf), for models that come without one.
    tokenizer
        Its tokenizer.json or spiece.model, if that is not beside it.
    """
    request = request or GenerationRequest()
    for path in (output, contact_sheet):
        if path is not None:
            require_place_for(path)
    generator = open_generator(
        model,
        device,
        precision,
        compile=compile,
        loras=lora,
        lora_mode=lora_mode,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
    if two_pass is not None and two_pass.upscaler is not None:
        generator = two_pass.open(generator.model, device, precision)
    video = make(generator, request)
    save(video, output or free_name(video.request))
    if contact_sheet is not None:
        save_contact_sheet(video, contact_sheet)
