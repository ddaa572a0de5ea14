"""Where captions come from, and what is said when one is missing."""

import csv
import json
from pathlib import Path

import pytest

from openltx.data.captioned import captioned_videos
from openltx.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "inside").mkdir(parents=True)
    for name in ("b.mp4", "a.mov", "inside/c.png", ".hidden.mp4", "notes.md"):
        (data / name).touch()
    return data


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


def test_texts_beside_videos(folder: Path) -> None:
    for name in ("a.txt", "b.txt", "inside/c.txt"):
        (folder / name).write_text(f"caption\n of {name}\n")
    found = captioned_videos(folder)
    assert [(video.path.name, video.caption) for video in found] == [
        ("a.mov", "caption of a.txt"), ("b.mp4", "caption of b.txt"), ("c.png", "caption of inside/c.txt"),
    ]  # fmt: skip
    assert [video.is_picture for video in found] == [False, False, True]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
@pytest.mark.parametrize("columns", [("path", "caption"), ("media_path", "caption"), ("file_name", "text")])
def test_tables_of_all_kinds(folder: Path, tmp_path: Path, suffix: str, columns: tuple[str, str]) -> None:
    rows = [dict(zip(columns, pair, strict=True)) for pair in (("b.mp4", 'a "red", ball'), ("inside/c.png", "ü"))]
    found = captioned_videos(folder, write_table(tmp_path / f"mine{suffix}", rows))
    assert [(video.path, video.caption) for video in found] == [
        (folder / "b.mp4", 'a "red", ball'), (folder / "inside" / "c.png", "ü"),
    ]  # fmt: skip
    write_table(folder / f"captions{suffix}", rows)
    assert captioned_videos(folder) == found  # found by itself


def test_references_from_a_column_or_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "depth" / "inside").mkdir(parents=True)
    for name in ("b.mkv", "inside/c.png"):
        (tmp_path / "depth" / name).touch()
    rows = [{"path": "b.mp4", "caption": "x", "reference_path": "a.mov"}]
    (by_column,) = captioned_videos(folder, write_table(tmp_path / "t.csv", rows))
    assert by_column.reference == folder / "a.mov"
    rows = [{"path": "b.mp4", "caption": "x"}, {"path": "inside/c.png", "caption": "y"}]
    found = captioned_videos(folder, write_table(tmp_path / "t.json", rows), tmp_path / "depth")
    assert [video.reference for video in found] == [tmp_path / "depth/b.mkv", tmp_path / "depth/inside/c.png"]
    rows = [{"path": "a.mov", "caption": "x"}]
    with pytest.raises(DataError, match=r"a\.mov has no reference"):
        captioned_videos(folder, write_table(tmp_path / "t.csv", rows), tmp_path / "depth")


def test_a_clip_folder_gives_its_training_clips(clip_folder: Path) -> None:
    found = captioned_videos(clip_folder)
    assert len(found) == 6
    assert all(video.path.is_file() and video.caption for video in found)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"2 of 3 videos have no caption: b\.mp4, c\.png\. Write each.*b\.txt"):
        captioned_videos(folder)
    with pytest.raises(DataError, match="no folder"):
        captioned_videos(folder / "nowhere")
    with pytest.raises(DataError, match="holds no videos"):
        captioned_videos(tmp_path / "depth") if (tmp_path / "depth").mkdir() is None else None
    for rows, message in (
        ([{"path": "z.mp4", "caption": "x"}], r"names z\.mp4, which is neither"),
        ([{"clip": "b.mp4", "caption": "x"}], "row 1 names no video: it has clip, caption"),
    ):
        with pytest.raises(DataError, match=message):
            captioned_videos(folder, write_table(tmp_path / "t.csv", rows))
    for name, text in (("t.jsonl", "{"), ("t.json", '{"a": 1}'), ("t.xls", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError):
            captioned_videos(folder, tmp_path / name)
