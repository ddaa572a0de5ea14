"""``openltx generate``: the flags are the fields of ``GenerationRequest``."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.output import free_name, make, open_generator, require_place_for, save, save_contact_sheet
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision
from openltx.recipes.official import read_official


def generate(
    request: Annotated[GenerationRequest, Parameter(name="*", consume_multiple=True, negative_iterable="")],
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    contact_sheet: Path | None = None,
    model: str | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    compile: Annotated[bool, Parameter(negative=())] = False,
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
        "playroom" (bundled, and taken if nothing is said), a released model that was pulled (`openltx models`), or the
        path of a weight file or folder.
    recipe
        Sample the model as this release; a released file under its own name needs no word.
    config
        Settings (and, without --model, the model) from a YAML file of the official code.
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
    official = None if config is None else read_official(config)
    named = model or ("playroom" if official is None else str(official.model))
    generator = open_generator(named, device, precision, compile=compile, recipe=recipe)
    if official is not None:
        for note in official.notes:
            print(f"{config}: {note}", file=sys.stderr)
        generator = Generator(official.apply(generator.model))
    video = make(generator, request)
    save(video, output or free_name(video.request))
    if contact_sheet is not None:
        save_contact_sheet(video, contact_sheet)
