"""``openltx generate``: the flags are the fields of ``GenerationRequest``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.output import make, open_generator, require_place_for
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision, Residency, require_room_for


def generate(
    request: Annotated[GenerationRequest, Parameter(name="*", consume_multiple=True, negative_iterable="")],
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    contact_sheet: Path | None = None,
    model: str = "playroom",
    device: Device = "auto",
    precision: Precision = "auto",
    residency: Residency = "resident",
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
        "playroom" (bundled), or the path of a weight file.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU. Known limits: float16 overflows in these networks and
        is never used; mps needs a torch whose 3D convolutions are right there (2.5 had wrong ones).
    precision
        Number format; auto takes bfloat16 where the hardware computes in it, else float32. int8 is for CPUs: half the
        memory of bfloat16 in the transformer's blocks.
    residency
        What is in memory: the whole model (resident); text encoder, transformer and VAE in turn (offloaded); of the
        transformer, one block after the other (streamed). The same video; less memory, and more reading from the disk.
    compile
        Let torch.compile fuse the transformer's blocks (accelerators only): the first step waits for it.
    """
    for path in (output, contact_sheet):
        if path is not None:
            require_place_for(path)
    require_room_for(model, request, device=device, precision=precision, residency=residency)
    generator = open_generator(model, device, precision, residency=residency, compile=compile)
    make(generator, request, output, contact_sheet)
