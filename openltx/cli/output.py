"""What the commands that make videos share: the check before, the progress bar during, the line after."""

import os
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openltx.errors import MediaError
from openltx.flow.solvers import Step
from openltx.media.writers import require_writable
from openltx.pipelines.generate import Generator, Video
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision, load
from openltx.pipelines.two_pass import TwoPassGenerator


def require_place_for(path: Path) -> None:
    """Raise ``MediaError`` now, before minutes of work, if ``path`` cannot be written later."""
    require_writable(path)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise MediaError(f"Cannot write {path}: no permission. Choose another place.")


def open_generator(model: str, device: Device, precision: Precision = "auto", **how: Any) -> Generator:
    """Load a model, saying so meanwhile; ``how`` are further arguments of ``load``."""
    with Console(stderr=True).status(f"Loading {model} ..."):
        return Generator(load(model, device=device, precision=precision, **how))


def make(generator: Generator | TwoPassGenerator, request: GenerationRequest) -> Video:
    """Make one video under a progress bar, one tick a denoising step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading the prompt", total=None)

        def show(step: Step) -> None:
            done = step.index + 1
            description = "Denoising" if done < step.total else "Decoding"
            bar.update(task, description=description, completed=done, total=step.total)

        return generator(request, progress=show)


def save(video: Video, path: Path) -> None:
    """Write the video and say where it is, what it is, its seed and how long it took."""
    files = video.save(path)
    place = str(path) if len(files) == 1 else f"{files[0]} to {files[-1].name}"
    frames, height, width, _ = video.frames.shape
    say(
        f"{place}  {frames} frames, {width}x{height}, {video.fps:g} fps, seed {video.request.seed}, "
        f"{video.seconds_taken:.1f} s"
    )


def save_contact_sheet(video: Video, path: Path) -> None:
    """Write some frames side by side, and say where."""
    video.contact_sheet(path)
    say(f"{path}  contact sheet")


def say(line: str) -> None:
    """Print one line as it is."""
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def free_name(request: GenerationRequest, suffix: str = ".mp4") -> Path:
    """A file name from prompt and seed that is not taken yet: a-red-ball-7.mp4, a-red-ball-7-2.mp4, ..."""
    words = re.sub(r"[^a-z0-9]+", "-", request.prompt.lower()).strip("-")
    return free_path(Path(f"{words[:48].rstrip('-') or 'video'}-{request.seed}{suffix}"))


def free_path(wanted: Path) -> Path:
    """The path itself, or with the first number behind its name that is not taken yet."""
    path, number = wanted, 1
    while path.exists():
        number += 1
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    return path
