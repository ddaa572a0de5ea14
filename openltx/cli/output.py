"""What the commands that make videos share: the check before, the progress bar during, the line after."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openltx.errors import MediaError
from openltx.media.contact_sheet import contact_sheet, evenly_spaced
from openltx.media.gradual import write_gradually
from openltx.media.writers import require_writable
from openltx.pipelines.generate import Generator, embedded
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision, Residency, load

SHEET_COLUMNS = 8


def require_place_for(path: Path) -> None:
    """Raise ``MediaError`` now, before minutes of work, if ``path`` cannot be written later."""
    require_writable(path)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise MediaError(f"Cannot write {path}: no permission. Choose another place.")


def open_generator(
    model: str,
    device: Device,
    precision: Precision = "auto",
    *,
    residency: Residency = "resident",
    compile: bool = False,
) -> Generator:
    """Load a model, saying so meanwhile."""
    with Console(stderr=True).status(f"Loading {model} ..."):
        return Generator(load(model, device=device, precision=precision, residency=residency, compile=compile))


def make(generator: Generator, request: GenerationRequest, path: Path | None, sheet: Path | None = None) -> None:
    """Make one video and write its frames as they come, under a progress bar; then say where it is and what it is.

    ``path`` None is a name from prompt and seed. ``sheet`` gets some of the frames side by side.
    """
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading the prompt", total=None)
        prepared = generator.prepare(request)
        state, settings = prepared.state, prepared.settings
        for step in generator.sample(prepared):
            state = step.state
            bar.update(task, description="Denoising", completed=step.index + 1, total=step.total)
        path = path or free_name(prepared.request)
        chosen = _Chosen(evenly_spaced(settings.frames, SHEET_COLUMNS) if sheet else [])
        bar.update(task, description="Decoding", completed=0, total=settings.frames)

        def pieces() -> Iterator[np.ndarray]:
            for frames in generator.decode_stream(prepared, state):
                chosen.see(frames)
                bar.advance(task, len(frames))
                yield frames

        def metadata() -> dict[str, str]:
            model, seconds = generator.model, time.perf_counter() - started
            return dict(embedded(prepared.request, model.name, model.fingerprint, seconds))

        files = write_gradually(path, pieces(), settings.fps, metadata)
    place = str(path) if len(files) == 1 else f"{files[0]} to {files[-1].name}"
    say(
        f"{place}  {settings.frames} frames, {settings.width}x{settings.height}, {settings.fps:g} fps, "
        f"seed {prepared.request.seed}, {time.perf_counter() - started:.1f} s"
    )
    if sheet is not None:
        contact_sheet([(prepared.request.prompt, np.stack(chosen.frames))], columns=SHEET_COLUMNS).save(sheet)
        say(f"{sheet}  contact sheet")


class _Chosen:
    """Keeps the frames of some numbers from all that pass."""

    def __init__(self, numbers: list[int]) -> None:
        self._numbers, self._seen = set(numbers), 0
        self.frames: list[np.ndarray] = []

    def see(self, frames: np.ndarray) -> None:
        self.frames += [frame for number, frame in enumerate(frames, self._seen) if number in self._numbers]
        self._seen += len(frames)


def say(line: str) -> None:
    """Print one line as it is."""
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def free_name(request: GenerationRequest, suffix: str = ".mp4") -> Path:
    """A file name from prompt and seed that is not taken yet: a-red-ball-7.mp4, a-red-ball-7-2.mp4, ..."""
    words = re.sub(r"[^a-z0-9]+", "-", request.prompt.lower()).strip("-")
    stem = f"{words[:48].rstrip('-') or 'video'}-{request.seed}"
    path, number = Path(stem + suffix), 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}{suffix}")
    return path
