"""``openltx data``: render worlds to learn from, and look at clip folders."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from PIL.Image import Image
from rich.console import Console

from openltx.data.manifest import Clip, read_manifest
from openltx.errors import DataError, MediaError

data_app = App(name="data", help="Render worlds to learn from, and look at data sets.")
world_app = App(name="world", help="Fill a folder with captioned clips of a procedural world.")
data_app.command(world_app)


@world_app.command
def playroom(
    *,
    clips: Annotated[int, Parameter(name=["--clips", "-n"])],
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    seed: int = 0,
    workers: Annotated[int, Parameter(name=["--workers", "-w"])] = 2,
) -> None:
    """Render Playroom: balls, cubes, cylinders, capsules and cones that fall, roll, slide, topple, collide and swing.

    128x128 pixels, 24 frames a second, 25 to 49 frames a clip. Run it again to go on after an interruption, or with
    more clips to add some: what is there is kept. The same seed gives the same clips, whatever the number of workers.

    Parameters
    ----------
    clips
        How many clips the folder shall hold in the end.
    out
        The folder: MP4 files, manifest.jsonl (caption and truth of each clip), world.json.
    seed
        Which of the endless worlds.
    workers
        Processes that simulate, draw and encode, one core each.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from openltx.data.worlds.playroom import generate

    columns = (TextColumn("Rendering"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("clips", total=clips)
        made = generate(
            out,
            clips=clips,
            seed=seed,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _say(f"{out}  {_summary(made)}")


@data_app.command
def show(
    folder: Path,
    *,
    clips: Annotated[int, Parameter(name=["--clips", "-n"])] = 24,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    split: Literal["train", "heldout"] | None = None,
    columns: int = 8,
) -> None:
    """Write a contact sheet of a clip folder: a row of frames for each clip, its caption above.

    Parameters
    ----------
    folder
        A folder with a manifest.
    clips
        How many clips, evenly spaced over the folder.
    out
        The PNG file (default: contact_sheet.png in the folder).
    split
        Only clips of this split.
    columns
        Frames a clip.
    """
    from openltx.media.contact_sheet import contact_sheet, evenly_spaced
    from openltx.media.io import read_video

    found = read_manifest(folder, split)
    if not found or clips < 1 or columns < 1:
        raise DataError(
            f"Nothing to show: {folder} has {len(found)} clips{f' in split {split}' if split else ''}; "
            f"asked for {clips} clips with {columns} frames each."
        )
    chosen = [found[i] for i in evenly_spaced(len(found), clips)]
    page = contact_sheet([(clip.caption, read_video(folder / clip.path)[0]) for clip in chosen], columns=columns)
    target = out or folder / "contact_sheet.png"
    _save_png(page, target)
    _say(f"{target}  {len(chosen)} of {_summary(found)}")


def _save_png(page: Image, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        page.save(partial, format="PNG")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MediaError(f"Cannot write {target}: {error.strerror or error}. Give another place with --out.") from error


def _summary(clips: list[Clip]) -> str:
    frames = sum(clip.frames for clip in clips)
    heldout = sum(clip.split == "heldout" for clip in clips)
    return f"{len(clips)} clips, {frames} frames, {heldout} clips held out"


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
