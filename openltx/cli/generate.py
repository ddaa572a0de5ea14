"""``openltx generate``: its flags are the fields of ``GenerationRequest`` and of the other classes in its signature."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from openltx.cli.long import generate_in_windows, require_long_output
from openltx.cli.output import make, require_place_for
from openltx.pipelines.enhance import open_enhancer, with_enhanced_prompt
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.windows import Windows
from openltx.recipes.opening import ModelFlags
from openltx.recipes.upscaling import UpscalerFlags


def generate(
    request: Annotated[
        GenerationRequest | None, Parameter(name="*", consume_multiple=True, negative_iterable="")
    ] = None,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    contact_sheet: Path | None = None,
    enhance: str | None = None,
    using: Annotated[ModelFlags | None, Parameter(name="*", consume_multiple=True, negative=())] = None,
    two_pass: Annotated[UpscalerFlags | None, Parameter(name="*", consume_multiple=True, negative_iterable="")] = None,
    windows: Annotated[Windows | None, Parameter(name="*")] = None,
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
    """
    request, choice = request or GenerationRequest(), (using or ModelFlags()).choose(two_pass, windows)
    for path in (output, contact_sheet):
        if path is not None:
            require_place_for(path)
    if windows is not None:
        require_long_output(output)
    choice.check(request)
    if enhance is not None:
        request = with_enhanced_prompt(request, open_enhancer(enhance), in_parts=windows is not None)
    with Console(stderr=True).status(f"Loading {choice.name} ..."):
        generator = choice.open()
    for note in choice.notes:
        print(note, file=sys.stderr)
    if windows is not None:
        assert isinstance(generator, Generator), "windows and two passes were refused together"
        return generate_in_windows(generator, request, windows, output, contact_sheet)
    make(generator, request, output, contact_sheet)
    return 0
