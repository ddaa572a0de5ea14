"""A data set on disk: a folder with ``manifest.jsonl`` (one clip a line) and ``world.json`` (what the whole is).

Lines are only ever appended, each in one write; a last line cut short by a crash is ignored when reading and removed
before appending goes on.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from openltx.errors import DataError

MANIFEST, WORLD = "manifest.jsonl", "world.json"
Split = Literal["train", "heldout"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video file with its caption. ``path`` is relative to the folder; ``truth`` is what its world knows of it."""

    path: str
    frames: int
    height: int
    width: int
    fps: float
    caption: str
    split: Split
    truth: dict[str, Any]


def read_manifest(folder: Path | str, split: Split | None = None) -> list[Clip]:
    """The clips of a folder, in order; of one split if given. Raises ``DataError`` if there is no readable manifest."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise DataError(
            f"No {MANIFEST} in {folder}. Make a world with: openltx data world playroom --clips 1000 --out {folder}"
        )
    clips = list(_parse(path))
    return [clip for clip in clips if split is None or clip.split == split]


def append_clip(folder: Path, clip: Clip) -> None:
    """Add one line to the manifest."""
    with (folder / MANIFEST).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(clip), ensure_ascii=False) + "\n")


def repair_manifest(folder: Path) -> None:
    """Cut off a last line that a crash left incomplete."""
    repair_lines(folder / MANIFEST)


def repair_lines(path: Path) -> None:
    """Cut off the last line of a file, if there is one, that a crash left incomplete."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        write_atomically(path, whole)


def read_world(folder: Path | str) -> dict[str, Any]:
    """What ``world.json`` says. Raises ``DataError`` if it is not there or not JSON."""
    path = Path(folder) / WORLD
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Is {folder} the folder of a world?") from error


def write_world(folder: Path, world: dict[str, Any]) -> None:
    """Write ``world.json``."""
    write_atomically(folder / WORLD, (json.dumps(world, indent=2) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _parse(path: Path) -> Iterator[Clip]:
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is a line being written
        try:
            yield Clip(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            raise DataError(f"{path}, line {number} is not a clip ({error}). Make the world again.") from error
