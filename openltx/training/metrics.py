"""What a run tells: one JSON line per logged step, TensorBoard, a picture of the curves, a line on the console.

`metrics.jsonl` and `evaluations.jsonl` have one object a line with at least "step" (completed steps) and "seconds" (of
training, over all resumes). When a run is resumed at a step, lines after it are cut off, so none is missing or doubled.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openltx.training.config import RunConfig
from openltx.training.curves import plot_curves

logger = logging.getLogger(__name__)

PLAIN_LINE_EVERY_SECONDS = 30.0  # where the console is no terminal


class JsonLines:
    """A file of JSON lines that can be taken up again after a given step."""

    def __init__(self, path: Path, step: int) -> None:
        """Open `path`, dropping lines after `step` and anything that a crash left half written."""
        with path.open("ab+") as file:
            file.truncate(_end_of_step(path, step))
        self.file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, object]) -> None:
        """Append one line and hand it to the operating system."""
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Return when all lines are on disk."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Recorder:
    """All outputs of a run, opened at the step from which it goes on."""

    def __init__(self, config: RunConfig, step: int, seconds: float) -> None:
        self.config = config
        self.metrics = JsonLines(config.out / "metrics.jsonl", step)
        self.evaluations = JsonLines(config.out / "evaluations.jsonl", step)
        self.board = _tensorboard(config.out / "tensorboard", step) if config.tensorboard else None
        self.console = ConsoleProgress(config, step)
        self.former_seconds = seconds
        self.started = self.last = time.monotonic()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.console.close()
        self.metrics.close()
        self.evaluations.close()
        if self.board is not None:
            self.board.close()

    def seconds(self) -> float:
        """Seconds of training, earlier calls included."""
        return self.former_seconds + time.monotonic() - self.started

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a completed step, if it is one to be logged."""
        now = time.monotonic()
        duration, self.last = now - self.last, now
        self.console.advance(step, values)
        if step % self.config.log_every == 0 or step == self.config.steps:
            timing = {"seconds": round(self.seconds(), 3), "step_seconds": round(duration, 4)}
            self.metrics.write({"step": step, **values, **timing})
            self._to_board(step, {**values, "step_seconds": duration})

    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        """Log what the samples of a step were found to be."""
        self.evaluations.write({"step": step, **values, "seconds": round(self.seconds(), 3)})
        self._to_board(step, {f"evaluation/{name}": value for name, value in values.items()})
        self.say(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def say(self, message: str) -> None:
        """Show a line on the console."""
        self.console.say(message)

    def flush(self) -> None:
        """Put all lines on disk and draw the loss curves anew."""
        self.metrics.sync()
        self.evaluations.sync()
        plot_curves(read_json_lines(self.config.out / "metrics.jsonl"), self.config.out / "curves.png")

    def _to_board(self, step: int, values: Mapping[str, float]) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)


class ConsoleProgress:
    """A progress bar with the time left on a terminal, a plain line now and then elsewhere, nothing if not wanted."""

    def __init__(self, config: RunConfig, step: int) -> None:
        self.steps = config.steps
        self.first = step
        self.started = self.printed = time.monotonic()
        self.console = Console(stderr=True, quiet=not config.progress, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal else None
        if self.bar is not None:
            self.bar.start()
            self.row = self.bar.add_task("", total=config.steps, completed=step)

    def advance(self, step: int, values: Mapping[str, float]) -> None:
        """Show that `step` steps are completed, and the losses."""
        losses = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name.endswith("/loss"))
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.row, completed=step, description=losses)
        elif now - self.printed >= PLAIN_LINE_EVERY_SECONDS:
            self.printed = now
            each = (now - self.started) / (step - self.first)
            left = (self.steps - step) * each / 60
            self.say(f"step {step}/{self.steps}  {losses}  {each:.2f} s/step  {left:.0f} min left")

    def say(self, message: str) -> None:
        """Show a line above the bar."""
        self.console.print(message, soft_wrap=True, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file, a half-written last line left out."""
    lines = path.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _end_of_step(path: Path, step: int) -> int:
    """Byte length of the complete lines up to and including `step`."""
    end = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        end += len(line)
    return end


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info('TensorBoard is not installed: no curves there (pip install "openltx[train]")')
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
