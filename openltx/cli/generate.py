"""``openltx generate``: its flags are the fields of ``GenerationRequest``, ``ModelFlags`` and ``UpscalerFlags``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.model_flags import ModelFlags
from openltx.cli.output import free_name, make, require_place_for, save, save_contact_sheet
from openltx.cli.two_pass import UpscalerFlags
from openltx.pipelines.request import GenerationRequest


def generate(
    request: Annotated[
        GenerationRequest | None, Parameter(name="*", consume_multiple=True, negative_iterable="")
    ] = None,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    contact_sheet: Path | None = None,
    using: Annotated[ModelFlags | None, Parameter(name="*")] = None,
    two_pass: Annotated[UpscalerFlags | None, Parameter(name="*", consume_multiple=True, negative_iterable="")] = None,
) -> None:
    """Make a video from a prompt, or from a picture and a prompt.

    What is left open is as the model prefers. The request is embedded in the file: `openltx inspect FILE` shows it.

    Parameters
    ----------
    output
        The file to write: .mp4, .gif, .webp, or .png for single frames. Named after prompt and seed if left out.
    contact_sheet
        Also write some frames side by side into this picture.
    """
    request = request or GenerationRequest()
    for path in (output, contact_sheet):
        if path is not None:
            require_place_for(path)
    generator = (using or ModelFlags()).open(two_pass)
    video = make(generator, request)
    save(video, output or free_name(video.request))
    if contact_sheet is not None:
        save_contact_sheet(video, contact_sheet)
