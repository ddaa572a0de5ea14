"""A folder of one's own videos and pictures with captions, to fine-tune on.

Where captions come from, the first that is there:

    --captions FILE      .csv, .jsonl or .json: a row for each video with its path, its caption and, if it has one, the
                         path of a reference clip. Paths are relative to the data folder, or to the file's own
    manifest.jsonl       a clip folder of ``openltx data``: its training clips
    captions.csv, ...    such a file in the folder, also as metadata.* or dataset.*
    walk.txt             beside walk.mp4

Columns may have any of the usual names, see ``COLUMNS``.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openltx.data.manifest import MANIFEST, read_manifest
from openltx.data.sources import VIDEO_SUFFIXES
from openltx.errors import DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")
TABLE_SUFFIXES = (".csv", ".jsonl", ".json")
TABLES = ("captions", "metadata", "dataset")
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "media_path", "video", "video_path", "file_name", "file", "image"),
    "caption": ("caption", "text", "prompt"),
    "reference": ("reference", "reference_path", "condition"),
}


@dataclass(frozen=True, kw_only=True)
class CaptionedVideo:
    """One file to learn from; ``reference`` is the clip that an in-context LoRA is to look at."""

    path: Path
    caption: str
    reference: Path | None = None

    @property
    def is_picture(self) -> bool:
        """Whether it is a single picture."""
        return self.path.suffix.lower() in PICTURE_SUFFIXES


def captioned_videos(
    folder: Path, captions: Path | None = None, references: Path | None = None
) -> list[CaptionedVideo]:
    """The videos and pictures of a folder with their captions, in the order of the table or of their names.

    ``references`` is a folder with a clip of the same name for each. Raises ``DataError`` for what is missing.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give the folder of your videos with --data.")
    table = captions if captions is not None else _table_in(folder)
    if captions is None and (folder / MANIFEST).is_file():
        clips = [clip for clip in read_manifest(folder) if clip.split == "train"]
        videos = [CaptionedVideo(path=folder / clip.path, caption=clip.caption) for clip in clips]
    elif table is not None:
        videos = [_of_row(row, place, folder, table) for place, row in enumerate(_rows(table), start=1)]
    else:
        videos = [_beside_text(path) for path in sorted(folder.rglob("*")) if _is_media(path)]
    if not videos:
        raise DataError(f"{folder} holds no videos to learn from ({' '.join(VIDEO_SUFFIXES)}, or pictures).")
    _require_captions(videos, folder)
    if references is not None:
        videos = [_with_reference(video, folder, references) for video in videos]
    return videos


def _table_in(folder: Path) -> Path | None:
    places = [folder / f"{name}{suffix}" for name in TABLES for suffix in TABLE_SUFFIXES]
    return next((place for place in places if place.is_file()), None)


def _rows(table: Path) -> list[Mapping[str, Any]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
        match table.suffix.lower():
            case ".csv":
                return list(csv.DictReader(text.splitlines()))
            case ".jsonl":
                rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            case ".json":
                rows = json.loads(text)
            case _:
                raise DataError(f"{table} is no table of captions: give a {', '.join(TABLE_SUFFIXES)}.")
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"The captions in {table} cannot be read: {error}.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f'{table} must hold a list of objects like {{"path": "walk.mp4", "caption": "a man walks"}}.')
    return rows


def _of_row(row: Mapping[str, Any], place: int, folder: Path, table: Path) -> CaptionedVideo:
    found = {field: next((str(row[name]) for name in names if row.get(name)), None) for field, names in COLUMNS.items()}
    path, caption, reference = found["path"], found["caption"], found["reference"]
    if path is None:
        raise DataError(
            f"{table}, row {place} names no video: it has {', '.join(map(str, row))}. Call the column "
            f"{COLUMNS['path'][0]} (or {', '.join(COLUMNS['path'][1:])})."
        )
    return CaptionedVideo(
        path=_located(path, folder, table),
        caption=caption or "",
        reference=None if reference is None else _located(reference, folder, table),
    )


def _located(path: str, folder: Path, table: Path) -> Path:
    places = (folder / path, table.parent / path)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"{table} names {path}, which is neither in {folder} nor beside the table.")
    return found


def _is_media(path: Path) -> bool:
    suffix = path.suffix.lower()
    return path.is_file() and not path.name.startswith(".") and suffix in (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)


def _beside_text(path: Path) -> CaptionedVideo:
    text = path.with_suffix(".txt")
    caption = " ".join(text.read_text(encoding="utf-8").split()) if text.is_file() else ""
    return CaptionedVideo(path=path, caption=caption)


def _require_captions(videos: Sequence[CaptionedVideo], folder: Path) -> None:
    silent = [video.path.name for video in videos if not video.caption.strip()]
    if silent:
        raise DataError(
            f"{len(silent)} of {len(videos)} videos have no caption: {', '.join(silent[:3])}"
            f"{', ...' if len(silent) > 3 else ''}. Write each beside its video ({Path(silent[0]).stem}.txt), or all "
            f"into {folder / 'captions.csv'} with the columns path and caption."
        )


def _with_reference(video: CaptionedVideo, folder: Path, references: Path) -> CaptionedVideo:
    inside = video.path.relative_to(folder) if video.path.is_relative_to(folder) else Path(video.path.name)
    exact = references / inside
    found = [exact] if exact.is_file() else [p for p in sorted(exact.parent.glob(f"{exact.stem}.*")) if _is_media(p)]
    if not found:
        raise DataError(f"{video.path} has no reference: {exact} does not exist. Give every video one of its name.")
    return CaptionedVideo(path=video.path, caption=video.caption, reference=found[0])
