"""``openltx demo``: one video from text, one from a picture and text, with a contact sheet of each."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.output import make, open_generator, say
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device

TEXT_PROMPT = "a red ball bounces on a checkered floor"
IMAGE_PROMPT = "a red ball rolls to the left on a white marble floor"
START_IMAGE = files("openltx") / "bundled" / "playroom" / "start.png"


def demo(
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("outputs/demo"),
    seed: int = 7,
    model: str = "playroom",
    device: Device = "auto",
) -> None:
    """Make two videos: one from a prompt, one from a shipped picture and a prompt.

    Parameters
    ----------
    output
        The folder for the videos and their contact sheets; it is made if missing.
    seed
        Another seed gives other videos.
    model
        "playroom" (bundled), or the path of a weight file.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    output.mkdir(parents=True, exist_ok=True)
    generator = open_generator(model, device)
    with as_file(START_IMAGE) as start:
        requests = {
            "text": GenerationRequest(TEXT_PROMPT, seed=seed),
            "image": GenerationRequest(IMAGE_PROMPT, image=start, seed=seed),
        }
        for name, request in requests.items():
            say(f'{name} to video: "{request.prompt}"')
            make(generator, request, output / f"{name}.mp4", output / f"{name}.png")
