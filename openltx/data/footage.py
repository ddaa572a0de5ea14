"""Fill a folder with clips cut from real videos: a film, or one's own.

Shots are found, each given to training or held out, resized, and cut into clips. A file is used whole or, when any part
of it cannot be decoded, not at all. The folder holds, beside what every clip folder has:

    sources.jsonl     one line for each file that is done, in the order in which they were
    rejected.jsonl    one line for each file that the last run could not use

A stopped run goes on where it stopped, to the same files; files that are added later change nothing that is there.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openltx.data.cutting import FootageSettings, Piece, clip_fps, plan_pieces, split_of_shot
from openltx.data.filling import clean_up, sole_user, write_clip
from openltx.data.manifest import (
    MANIFEST,
    WORLD,
    Clip,
    append_clip,
    read_manifest,
    read_world,
    repair_lines,
    write_atomically,
    write_world,
)
from openltx.data.shots import find_shots
from openltx.data.sources import Rejection, Source, examine, find_files
from openltx.errors import DataError, MediaError
from openltx.media.stream import stream_video
from openltx.media.transforms import resize_cover

VERSION = 1
CRF = 10
SOURCES, REJECTED = "sources.jsonl", "rejected.jsonl"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one file; its line in ``sources.jsonl``."""

    source: str
    sha256: str
    frames: int
    fps: float
    shots: int
    short_shots: int
    rest_frames: int
    clips: int
    credit: str | None


@dataclass(frozen=True, kw_only=True)
class Footage:
    """What a folder holds after a run, and which files the run could not use."""

    clips: list[Clip]
    records: list[Record]
    rejected: list[Rejection]


def cut_footage(
    places: Sequence[Path],
    out: Path | str,
    settings: FootageSettings,
    *,
    credit: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Footage:
    """Cut the videos of ``places`` (files and folders) into clips in folder ``out``.

    ``credit`` names whoever has the rights, if the videos are no asset of ours. ``progress`` is told (frames looked at,
    frames in all); every frame is passed twice, to find the shots and to cut them. Raises ``DataError`` if a place does
    not exist, the folder was made with other settings, or no clip came out at all.
    """
    folder = Path(out)
    files = find_files(places, out=folder)
    folder.mkdir(parents=True, exist_ok=True)
    with sole_user(folder):
        footage = _fill(folder, files, settings, credit, progress or (lambda *_: None))
    if not footage.clips:
        raise DataError(_nothing_came_out(footage, settings))
    return footage


def read_records(folder: Path | str) -> list[Record]:
    """The files that are done, in order."""
    path = Path(folder) / SOURCES
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Record(**json.loads(line)) for line in lines]


def _fill(
    folder: Path,
    files: Sequence[tuple[Path, str]],
    settings: FootageSettings,
    credit: str | None,
    progress: Callable[[int, int], None],
) -> Footage:
    credits_so_far = _check_folder(folder, settings)
    clean_up(folder)
    repair_lines(folder / SOURCES)
    sources, rejected = examine(files, credit)
    new_credits = {source.credit for source in sources if source.credit}
    write_world(folder, describe(settings, credits_so_far | new_credits))
    done = {record.sha256 for record in read_records(folder)}
    there = {clip.path for clip in _clips_in(folder)}
    before, total = 0, 2 * sum(source.frames for source in sources)
    for source in sources:
        if source.sha256 not in done:
            try:
                record = _cut(folder, source, settings, there, partial(_tell, progress, before, total))
                _append_record(folder, record)
            except MediaError as error:
                rejected.append(Rejection(source=source.name, reason=str(error)))
        before += 2 * source.frames
        progress(before, total)
    lines = [json.dumps(asdict(rejection), ensure_ascii=False) + "\n" for rejection in rejected]
    write_atomically(folder / REJECTED, "".join(lines).encode())
    return Footage(clips=_clips_in(folder), records=read_records(folder), rejected=rejected)


def _cut(
    folder: Path, source: Source, settings: FootageSettings, there: set[str], looked_at: Callable[[int], None]
) -> Record:
    """Cut one file, but for the clips that are ``there``. Nothing is written before all of it has been decoded once."""
    plan = plan_pieces(find_shots(source.path, progress=looked_at), source.fps, settings)
    missing = [piece for piece in plan.pieces if clip_path(source, piece) not in there]
    for piece, frames in _read_pieces(source, missing, settings, looked_at):
        _add_clip(folder, source, piece, frames, settings)
    return Record(
        source=source.name,
        sha256=source.sha256,
        frames=source.frames,
        fps=source.fps,
        shots=plan.shots,
        short_shots=plan.short_shots,
        rest_frames=plan.rest_frames,
        clips=len(plan.pieces),
        credit=source.credit,
    )


def _append_record(folder: Path, record: Record) -> None:
    with (folder / SOURCES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")


def _read_pieces(
    source: Source, pieces: Sequence[Piece], settings: FootageSettings, looked_at: Callable[[int], None]
) -> Iterator[tuple[Piece, UInt8[np.ndarray, "F H W 3"]]]:
    """The frames of each piece, resized, in one pass over the file; one piece is in memory at a time."""
    wanted = {index for piece in pieces for index in piece.indices}
    waiting = iter(pieces)
    piece, frames = next(waiting, None), []
    for index, frame in stream_video(source.path, wanted.__contains__):
        if piece is None:
            return
        looked_at(source.frames + index)
        if frame is not None:
            frames.append(resize_cover(frame, settings.height, settings.width))
        if index == piece.indices[-1]:
            yield piece, np.stack(frames)
            piece, frames = next(waiting, None), []


def _add_clip(
    folder: Path, source: Source, piece: Piece, frames: UInt8[np.ndarray, "F H W 3"], settings: FootageSettings
) -> None:
    clip = Clip(
        path=clip_path(source, piece),
        frames=len(frames),
        height=settings.height,
        width=settings.width,
        fps=clip_fps(source.fps, settings),
        caption=source.caption,
        split=split_of_shot(source.sha256, piece.shot, settings),
        truth={"source": source.name, "shot": piece.shot, "first_frame": piece.indices[0]},
    )
    write_clip(folder / clip.path, frames, clip.fps, crf=CRF)
    append_clip(folder, clip)


def clip_path(source: Source, piece: Piece) -> str:
    """Where a clip lies: named after the content it is cut from."""
    return f"clips/{source.sha256[:12]}/{piece.shot:05d}-{piece.indices[0]:07d}.mp4"


def describe(settings: FootageSettings, credits: set[str]) -> dict[str, object]:
    """What ``world.json`` says."""
    return {"world": "footage", "version": VERSION, "settings": asdict(settings), "credits": sorted(credits)}


def _check_folder(folder: Path, settings: FootageSettings) -> set[str]:
    """The credits of a folder that was begun with these settings; ``DataError`` names the ones that differ."""
    if not (folder / WORLD).exists():
        return set()
    world = read_world(folder)
    if (world.get("world"), world.get("version")) != ("footage", VERSION):
        raise DataError(
            f"{folder} holds the world {world.get('world')} version {world.get('version')}, not footage version "
            f"{VERSION}. Choose another --out."
        )
    there, asked = world["settings"], asdict(settings)
    differing = [f"{name} {there.get(name)}, not {value}" for name, value in asked.items() if there.get(name) != value]
    if differing:
        raise DataError(
            f"{folder} was made with {'; '.join(differing)}. Use the same settings, or choose another --out."
        )
    return set(world["credits"])


def _clips_in(folder: Path) -> list[Clip]:
    return read_manifest(folder) if (folder / MANIFEST).exists() else []


def _tell(progress: Callable[[int, int], None], before: int, total: int, frames: int) -> None:
    progress(before + frames, total)


def _nothing_came_out(footage: Footage, settings: FootageSettings) -> str:
    short = sum(record.short_shots for record in footage.records)
    reasons = "".join(f" {rejection.source}: {rejection.reason}" for rejection in footage.rejected)
    return (
        f"No clip came out of {len(footage.records) + len(footage.rejected)} files: {short} shots are shorter than "
        f"{settings.min_frames} frames, {len(footage.rejected)} files could not be used.{reasons}"
    )
