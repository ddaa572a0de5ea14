"""``openltx generate --window``: a long video under a progress bar, and what Ctrl-C leaves of it."""

import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from openltx.cli.output import free_name, say
from openltx.media.contact_sheet import contact_sheet, evenly_spaced
from openltx.media.stream import stream_video
from openltx.media.writers import require_streamable
from openltx.pipelines.generate import Generator
from openltx.pipelines.long import LongResult, LongStep, LongVideo
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.windows import Windows

_SHEET_ROWS, _SHEET_COLUMNS = 8, 8


def generate_in_windows(
    generator: Generator, request: GenerationRequest, windows: Windows, output: Path | None, sheet: Path | None
) -> int:
    """Make a long video, and say what was written; gives the exit code, 130 if Ctrl-C ended it early."""
    request = generator.resolve(request)
    path = output or free_name(request)
    with _ctrl_c() as stop:
        result = _make(LongVideo(generator.model, windows), request, path, stop)
    if result.frames == 0:
        raise KeyboardInterrupt
    _report(result, windows)
    if sheet is not None:
        _save_sheet(result, sheet)
    return 0 if result.is_whole else 130


def require_long_output(output: Path | None) -> None:
    """Raise ``MediaError`` now if a long video cannot be written to ``output``."""
    if output is not None:
        require_streamable(output)


def _make(video: LongVideo, request: GenerationRequest, path: Path, stop: Callable[[], bool]) -> LongResult:
    """One tick a denoising step of any window, so that the time left is that of the whole."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading the prompt", total=None)

        def show(now: LongStep) -> None:
            ending = ", stopping: Ctrl-C again drops the file" if stop() else ""
            bar.update(
                task,
                description=f"Window {now.window + 1} of {now.windows}{ending}",
                completed=now.window * now.step.total + now.step.index + 1,
                total=now.windows * now.step.total,
            )

        return video.save(request, path, show, stop)


def _report(result: LongResult, windows: Windows) -> None:
    """Say what was written, and after Ctrl-C also how to go on."""
    request, total = result.plan.request, len(result.plan.windows)
    say(
        f"{result.path}  {result.frames} frames, {request.size}, {request.fps:g} fps, {result.windows} of {total} "
        f"windows, seed {request.seed}, {result.seconds_taken:.1f} s"
    )
    if not result.is_whole:
        tail = shlex.quote(f"{result.path}[-{windows.overlap}:]@0")
        say(
            f"Stopped. To go on from its end in another file, that begins with its last {windows.overlap} frames: "
            f"openltx generate PROMPT --frames {(request.frames or 0) - result.frames + windows.overlap} "
            f"--window {windows.window} --keyframes {tail}"
        )


def _save_sheet(result: LongResult, path: Path) -> None:
    """A row of frames for each window (of up to eight of them)."""
    finished = [window for window in result.plan.windows if window.start < result.frames - 1]
    shown = [finished[index] for index in evenly_spaced(len(finished), _SHEET_ROWS)]
    spans = [range(window.start, min(window.end, result.frames)) for window in shown]
    places = [[span[i] for i in evenly_spaced(len(span), _SHEET_COLUMNS)] for span in spans]
    wanted = {place for row in places for place in row}
    frames = {place: frame for place, frame in stream_video(result.path, wanted.__contains__) if frame is not None}
    captions = [f"{row[0]} to {row[-1]}: {window.request.prompt}" for row, window in zip(places, shown, strict=True)]
    rows = [np.stack([frames[place] for place in row]) for row in places]
    contact_sheet(list(zip(captions, rows, strict=True))).save(path)
    say(f"{path}  contact sheet")


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed: the first time it only asks, the second time it interrupts."""
    asked = False

    def remember(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    former = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, former)
