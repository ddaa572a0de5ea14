"""A manifest survives crashes and names what is wrong with it."""

from pathlib import Path

import pytest

from openltx.data.manifest import Clip, append_clip, read_manifest, read_world, repair_manifest, write_world
from openltx.errors import DataError

CLIP = Clip(path="a.mp4", frames=25, height=32, width=32, fps=24.0, caption="é", split="train", truth={"scene": 0})


def test_clips_come_back_as_they_were_written(tmp_path: Path) -> None:
    append_clip(tmp_path, CLIP)
    append_clip(tmp_path, CLIP)
    assert read_manifest(tmp_path) == [CLIP, CLIP]
    assert read_manifest(tmp_path, "heldout") == []


def test_a_line_cut_short_is_ignored_and_repaired(tmp_path: Path) -> None:
    append_clip(tmp_path, CLIP)
    whole = (tmp_path / "manifest.jsonl").read_bytes()
    (tmp_path / "manifest.jsonl").write_bytes(whole + whole[:20])
    assert read_manifest(tmp_path) == [CLIP]
    repair_manifest(tmp_path)
    assert (tmp_path / "manifest.jsonl").read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    append_clip(tmp_path, CLIP)
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write("no json\n")
    with pytest.raises(DataError, match="line 2"):
        read_manifest(tmp_path)


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="openltx data world playroom"):
        read_manifest(tmp_path)


def test_world_json_round_trips_and_is_demanded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"world\.json"):
        read_world(tmp_path)
    write_world(tmp_path, {"seed": 1})
    assert read_world(tmp_path) == {"seed": 1}
