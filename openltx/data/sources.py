"""The video files that footage is cut from, each known by the hash of its content, whatever it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openltx.checkpoints.assets import ASSETS
from openltx.checkpoints.assets.archives import file_sha256
from openltx.errors import DataError, MediaError
from openltx.media.io import probe

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".y4m"),
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One video file. ``name`` is its path below the folder that was given, ``credit`` whom to name as its author."""

    path: Path
    name: str
    sha256: str
    frames: int
    fps: float
    credit: str | None

    @property
    def caption(self) -> str:
        """The text beside the video (``walk.txt`` for ``walk.mp4``) on one line; empty if there is none."""
        text = self.path.with_suffix(".txt")
        return " ".join(text.read_text(encoding="utf-8").split()) if text.is_file() else ""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A file that no footage came from, and why."""

    source: str
    reason: str


def find_files(places: Sequence[Path], *, out: Path | None) -> list[tuple[Path, str]]:
    """(path, name) of every file that is given, and of every video in the folders that are given.

    In the order given, folders sorted, without what lies in ``out`` or is hidden. Raises ``DataError`` for a place that
    does not exist or a folder without videos.
    """
    if not places:
        raise DataError("There is nothing to look at. Give at least one video, or a folder of videos.")
    found: list[tuple[Path, str]] = []
    for place in places:
        if place.is_file():
            found.append((place, place.name))
        elif place.is_dir():
            inside = [path for path in sorted(place.rglob("*")) if _is_video(path, place, out)]
            if not inside:
                raise DataError(
                    f"There is no video in {place}. Looked for files ending with {' '.join(VIDEO_SUFFIXES)}."
                )
            found += [(path, path.relative_to(place).as_posix()) for path in inside]
        else:
            raise DataError(f"There is no file or folder {place}. Give videos, or folders of videos.")
    return found


def examine(files: Sequence[tuple[Path, str]], credit: str | None = None) -> tuple[list[Source], list[Rejection]]:
    """What can be opened, each content once, and what cannot. ``credit`` is for videos that are no assets."""
    sources: dict[str, Source] = {}
    rejected = []
    for path, name in files:
        try:
            shape, sha256 = probe(path), file_sha256(path)
        except (MediaError, OSError) as error:
            rejected.append(Rejection(source=name, reason=str(error)))
            continue
        if sha256 in sources:
            rejected.append(Rejection(source=name, reason=f"It has the same content as {sources[sha256].name}."))
        else:
            sources[sha256] = Source(
                path=path,
                name=name,
                sha256=sha256,
                frames=shape.frames,
                fps=shape.fps,
                credit=credit_of(sha256) or credit,
            )
    return list(sources.values()), rejected


def credit_of(sha256: str) -> str | None:
    """Whom to name as the author of a file that is an asset's; None for any other."""
    return next((asset.credit for asset in ASSETS.values() if sha256 in asset.digests.values()), None)


def _is_video(path: Path, place: Path, out: Path | None) -> bool:
    below = path.relative_to(place)
    return (
        path.suffix.lower() in VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in below.parts)
        and not (out is not None and path.resolve().is_relative_to(out.resolve()))
        and path.is_file()
    )
