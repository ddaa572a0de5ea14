"""``openltx generate``: the flags are the fields of ``GenerationRequest``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.long import generate_in_windows, require_long_output
from openltx.cli.output import free_name, make, open_generator, require_place_for, save, save_contact_sheet
from openltx.pipelines.check import check_request
from openltx.pipelines.enhance import open_enhancer, with_enhanced_prompt
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision
from openltx.pipelines.windows import Windows


def generate(
    request: Annotated[GenerationRequest, Parameter(name="*", consume_multiple=True, negative_iterable="")],
    *,
    windows: Annotated[Windows | None, Parameter(name="*")] = None,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    contact_sheet: Path | None = None,
    enhance: str | None = None,
    model: str = "playroom",
    device: Device = "auto",
    precision: Precision = "auto",
    compile: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Make a video from a prompt, or from a picture and a prompt.

    What is left open is as the model prefers. The request is embedded in the file: `openltx inspect FILE` shows it.

    Parameters
    ----------
    output
        The file to write: .mp4, .gif, .webp, or .png for single frames. Named after prompt and seed if left out.
    contact_sheet
        Also write some frames side by side into this picture.
    enhance
        Write the prompt out first: a folder with a language model (transformers' layout), or a program that reads the
        prompt on its standard input and writes a fuller one.
    model
        "playroom" (bundled), or the path of a weight file.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    precision
        Number format; auto takes bfloat16 where the hardware computes in it, else float32. int8 is for CPUs: half the
        memory of bfloat16 in the transformer's blocks.
    compile
        Let torch.compile fuse the transformer's blocks (accelerators only): the first step waits for it.
    """
    for path in (output, contact_sheet):
        if path is not None:
            require_place_for(path)
    if windows is not None:
        require_long_output(output)
    check_request(model, request, windows)
    if enhance is not None:
        request = with_enhanced_prompt(request, open_enhancer(enhance), in_parts=windows is not None)
    generator = open_generator(model, device, precision, compile=compile)
    if windows is not None:
        return generate_in_windows(generator, request, windows, output, contact_sheet)
    video = make(generator, request)
    save(video, output or free_name(video.request))
    if contact_sheet is not None:
        save_contact_sheet(video, contact_sheet)
    return 0
