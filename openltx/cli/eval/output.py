"""What the commands of ``openltx eval`` show and leave behind: progress bars, and a folder with report and pictures."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from openltx.cli.output import say
from openltx.eval.report import write_json, write_text

Tick = Callable[[int, int], None]


@contextlib.contextmanager
def progress(what: str) -> Iterator[Tick]:
    """A bar on stderr that appears with its first tick."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = []

        def tick(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task(what, total=total))
            bar.update(tasks[0], completed=done, total=total)

        yield tick


def publish(
    report: dict[str, Any], text: str, pictures: Mapping[str, Image], out: Path, json: Path | None = None
) -> None:
    """Print the report, and write it with its pictures."""
    print(text)
    json = json or out / "report.json"
    write_text(out / "report.md", text)
    write_json(json, report)
    for name, picture in pictures.items():
        save_picture(picture, out / name)
    say(f"{out}  {', '.join(['report.md', *pictures])}; {json}")


def save_picture(picture: Image, path: Path) -> None:
    """Write a PNG atomically."""
    partial = path.with_suffix(".tmp")
    picture.save(partial, format="PNG")
    partial.replace(path)
