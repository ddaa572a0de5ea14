"""What the commands that make videos share: the check before, the progress bar during, the line after."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openltx.errors import MediaError
from openltx.flow.solvers import Step
from openltx.media.contact_sheet import ChosenFrames, contact_sheet, evenly_spaced
from openltx.media.gradual import write_gradually
from openltx.media.writers import require_writable
from openltx.models.bundle import LTXModel
from openltx.pipelines.generate import Generator, embedded
from openltx.pipelines.request import GenerationRequest, Sampling
from openltx.pipelines.residency import Device, Precision, load
from openltx.pipelines.two_pass import TwoPassGenerator

SHEET_COLUMNS = 8


def require_place_for(path: Path) -> None:
    """Raise ``MediaError`` now, before minutes of work, if ``path`` cannot be written later."""
    require_writable(path)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise MediaError(f"Cannot write {path}: no permission. Choose another place.")


def open_generator(model: str, device: Device, precision: Precision = "auto", **how: Any) -> Generator:
    """Load a model, saying so meanwhile; ``how`` are further arguments of ``load``."""
    with Console(stderr=True).status(f"Loading {model} ..."):
        return Generator(load(model, device=device, precision=precision, **how))


def make(
    generator: Generator | TwoPassGenerator, request: GenerationRequest, path: Path | None, sheet: Path | None = None
) -> None:
    """Make one video and write its frames as they come, under a progress bar; then say where it is and what it is.

    ``path`` None is a name from prompt and seed. ``sheet`` gets some of the frames side by side.
    """
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading the prompt", total=None)

        def show(step: Step) -> None:
            bar.update(task, description="Denoising", completed=step.index + 1, total=step.total)

        sampled = _sample(generator, request, show)
        settings, model = sampled.request.settings(Sampling()), sampled.model
        path = path or free_name(sampled.request)
        chosen = ChosenFrames(evenly_spaced(settings.frames, SHEET_COLUMNS) if sheet else [])
        bar.update(task, description="Decoding", completed=0, total=settings.frames)

        def pieces() -> Iterator[np.ndarray]:
            for frames in sampled.frames:
                chosen.see(frames)
                bar.advance(task, len(frames))
                yield frames

        def metadata() -> dict[str, str]:
            seconds = time.perf_counter() - started
            return dict(embedded(sampled.request, model.name, model.fingerprint, seconds, model.loras, sampled.details))

        files = write_gradually(path, pieces(), settings.fps, metadata)
    place = str(path) if len(files) == 1 else f"{files[0]} to {files[-1].name}"
    say(
        f"{place}  {settings.frames} frames, {settings.width}x{settings.height}, {settings.fps:g} fps, "
        f"seed {sampled.request.seed}, {time.perf_counter() - started:.1f} s"
    )
    if sheet is not None:
        contact_sheet([(sampled.request.prompt, np.stack(chosen.frames))], columns=SHEET_COLUMNS).save(sheet)
        say(f"{sheet}  contact sheet")


@dataclass(frozen=True, kw_only=True)
class _Sampled:
    """A video that is sampled, and whose frames are decoded as they are asked for."""

    request: GenerationRequest
    model: LTXModel
    frames: Iterator[np.ndarray]
    details: Mapping[str, str] = field(default_factory=dict)


def _sample(
    generator: Generator | TwoPassGenerator, request: GenerationRequest, show: Callable[[Step], None]
) -> _Sampled:
    """One pass or both; ``show`` is called after each step."""
    if isinstance(generator, TwoPassGenerator):
        plan, prepared, state = generator.sampled(request, show)
        frames = generator.decode_stream(plan, prepared, state)
        return _Sampled(
            request=plan.request, model=generator.first.model, frames=frames, details=generator.details(plan)
        )
    prepared = generator.prepare(request)
    state = prepared.state
    for step in generator.sample(prepared):
        state = step.state
        show(step)
    frames = generator.decode_stream(prepared, state)
    return _Sampled(request=prepared.request, model=generator.model, frames=frames)


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
