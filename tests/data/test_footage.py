"""Footage: real videos become a clip folder, whatever happens on the way; a shot never changes sides."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openltx.checkpoints.assets.videos import BIG_BUCK_BUNNY
from openltx.data import sources
from openltx.data.cutting import FootageSettings, Plan, plan_pieces, split_of_shot
from openltx.data.datasets import ClipBatches, Draw, Stage
from openltx.data.footage import Footage, cut_footage
from openltx.data.manifest import Clip, read_manifest, read_world
from openltx.data.shots import Shot
from openltx.errors import DataError
from openltx.media.io import read_video, write_video
from openltx.media.transforms import resize_cover

SETTINGS = FootageSettings(width=64, height=64, frames=10, min_frames=5, heldout=0.4)
COLOURS = ((200, 40, 40), (40, 60, 200), (230, 220, 60), (30, 160, 80))


def write_film(path: Path, *shots: int, first_colour: int = 0, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A video of shots with so many frames each: stripes wander over a ground of another colour in each shot."""
    parts = []
    for number, frames in enumerate(shots):
        columns = np.arange(size[1])[None, :] - 2 * np.arange(frames)[:, None]
        shade = np.where(columns % 32 < 12, 1.0, 0.6)[:, None, :, None]
        colour = np.array(COLOURS[(first_colour + number) % len(COLOURS)])
        parts.append(np.broadcast_to(shade * colour, (frames, *size, 3)).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    film = np.concatenate(parts)
    write_video(path, film, 24.0, crf=4)
    return film


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two films: three shots of 24, 3 and 12 frames, and two of 11 and 8."""
    write_film(tmp_path / "videos" / "a.mp4", 24, 3, 12)
    write_film(tmp_path / "videos" / "more" / "b.mp4", 11, 8, first_colour=2)
    return tmp_path / "videos"


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def sides(clips: list[Clip]) -> dict[tuple[str, int], set[str]]:
    """Which splits the clips of each shot are in."""
    found: dict[tuple[str, int], set[str]] = {}
    for clip in clips:
        found.setdefault((clip.truth["source"], clip.truth["shot"]), set()).add(clip.split)
    return found


def test_shots_become_clips_and_what_is_dropped_is_counted(videos: Path, tmp_path: Path) -> None:
    made = cut_footage([videos], tmp_path / "out", SETTINGS)
    places = [(c.truth["source"], c.truth["shot"], c.truth["first_frame"], c.frames) for c in made.clips]
    assert places == [
        *(("a.mp4", 0, 0, 10), ("a.mp4", 0, 10, 10), ("a.mp4", 2, 27, 10)),
        *(("more/b.mp4", 0, 0, 10), ("more/b.mp4", 1, 11, 8)),
    ]
    first, second = made.records
    assert (first.shots, first.short_shots, first.rest_frames, first.clips) == (3, 1, 6, 3)
    assert (second.shots, second.short_shots, second.rest_frames, second.clips) == (2, 0, 1, 2)
    assert made.rejected == []


def test_clips_are_the_resized_frames_of_their_source(tmp_path: Path) -> None:
    film = write_film(tmp_path / "wide.mp4", 12, size=(96, 160))
    (clip,) = cut_footage([tmp_path / "wide.mp4"], tmp_path / "out", replace(SETTINGS, frames=12, heldout=0.0)).clips
    stored, fps = read_video(tmp_path / "out" / clip.path)
    assert (stored.shape, fps) == ((12, 64, 64, 3), clip.fps)
    expected = np.stack([resize_cover(frame, 64, 64) for frame in film])
    assert np.abs(stored.astype(float) - expected).mean() < 3


def test_a_stopped_run_goes_on_to_the_same_files(videos: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    (videos / "c.mp4").write_bytes(b"no video")
    cut_footage([videos], whole, SETTINGS)
    for frames in (1, 70, 110):  # while shots are found, between two clips of a film, in the second film

        def stop(done: int, total: int, frames: int = frames) -> None:
            if done == frames:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cut_footage([videos], broken, SETTINGS, progress=stop)
    there = read_manifest(broken)
    assert 3 <= len(there) < 5
    for name in ("manifest.jsonl", "sources.jsonl"):
        with (broken / name).open("a") as file:
            file.write('{"path": "clips/00')
    half = broken / f"{there[0].path.removesuffix('.mp4')}.77.partial.mp4"
    half.write_bytes(b"half a clip")
    cut_footage([videos], broken, SETTINGS)
    assert content(broken) == content(whole)


def test_a_finished_folder_is_left_as_it_is(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_footage([videos], tmp_path / "out", SETTINGS)
    before, seen = content(tmp_path / "out"), []
    monkeypatch.setattr("openltx.data.footage.find_shots", None)
    cut_footage([videos], tmp_path / "out", SETTINGS, progress=lambda *done: seen.append(done))
    assert content(tmp_path / "out") == before
    assert seen[-1] == (2 * (39 + 19), 2 * (39 + 19))


def test_no_shot_is_in_both_splits(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", *[12] * 12)
    clips = cut_footage([tmp_path / "a.mp4"], tmp_path / "out", replace(SETTINGS, frames=6)).clips
    found = sides(clips)
    assert len(clips) == 2 * len(found) == 24
    assert all(len(splits) == 1 for splits in found.values())
    assert set.union(*found.values()) == {"train", "heldout"}


def test_the_share_of_heldout_shots_is_the_one_asked_for() -> None:
    count = Counter(split_of_shot("ab" * 32, shot, replace(SETTINGS, heldout=0.1)) for shot in range(2000))
    assert 160 < count["heldout"] < 240
    assert {split_of_shot("ab" * 32, shot, replace(SETTINGS, heldout=0.0)) for shot in range(99)} == {"train"}


def test_adding_renaming_and_reordering_files_moves_no_shot(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = cut_footage([videos], out, SETTINGS).clips
    write_film(videos / "0.mp4", 9, 9, first_colour=1)
    (videos / "a.mp4").rename(videos / "z.mp4")
    after = cut_footage([videos], out, SETTINGS).clips
    assert after[: len(before)] == before
    assert {clip.truth["source"] for clip in after[len(before) :]} == {"0.mp4"}
    fresh = cut_footage([videos], tmp_path / "fresh", SETTINGS).clips
    assert {clip.path: clip.split for clip in fresh} == {clip.path: clip.split for clip in after}


def test_damaged_files_are_listed_with_their_reason_and_stop_nothing(videos: Path, tmp_path: Path) -> None:
    whole = (videos / "a.mp4").read_bytes()
    (videos / "0-cut-short.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "1-text.avi").write_text("no video")
    damaged = bytearray(whole)
    middle = damaged.rindex(b"mdat") + 2000
    damaged[middle : middle + 300] = bytes(300)
    (videos / "2-damaged.mp4").write_bytes(damaged)
    (videos / "copy.mp4").write_bytes(whole)
    made = cut_footage([videos], tmp_path / "out", SETTINGS)
    assert [record.source for record in made.records] == ["a.mp4", "more/b.mp4"]
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    listed = {line["source"]: line["reason"] for line in map(json.loads, lines)}
    assert set(listed) == {"0-cut-short.mp4", "1-text.avi", "2-damaged.mp4", "copy.mp4"}
    assert listed["copy.mp4"] == "It has the same content as a.mp4."
    assert {clip.truth["source"] for clip in made.clips} == {"a.mp4", "more/b.mp4"}
    assert (videos / "2-damaged.mp4").read_bytes() == damaged


def test_other_settings_or_another_world_are_refused(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_footage([videos / "a.mp4"], out, SETTINGS)
    with pytest.raises(DataError, match=r"made with width 64, not 96; seed 0, not 1\. Use the same"):
        cut_footage([videos / "a.mp4"], out, replace(SETTINGS, width=96, seed=1))
    (tmp_path / "playroom").mkdir()
    (tmp_path / "playroom" / "world.json").write_text('{"world": "playroom", "version": 1}')
    with pytest.raises(DataError, match="holds the world playroom version 1, not footage"):
        cut_footage([videos / "a.mp4"], tmp_path / "playroom", SETTINGS)


def test_two_runs_cannot_fill_one_folder(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Another run"):
        cut_footage(
            [videos], tmp_path / "out", SETTINGS, progress=lambda *_: cut_footage([videos], tmp_path / "out", SETTINGS)
        )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"width": 100}, r"100x64 .* multiples of 32\. Near it: 96x64"),
        ({"height": 0}, "Near it: 64x32"),
        ({"min_frames": 11}, "11 to 10 frames"),
        ({"min_frames": 0}, "at least 1"),
        ({"heldout": 1.0}, "from 0 to below 1"),
        ({"fps": 0.0}, "above 0"),
        ({"skip_end": -1.0}, "-1.0 s at the end"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        replace(SETTINGS, **change)  # pyright: ignore[reportArgumentType]


def test_missing_and_empty_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        cut_footage([tmp_path / "absent"], tmp_path / "out", SETTINGS)
    with pytest.raises(DataError, match="There is no video in"):
        cut_footage([tmp_path], tmp_path / "out", SETTINGS)


def test_when_nothing_comes_out_the_reasons_are_told(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", 4)
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 shots are shorter than 5 frames, 1 files could not be used\. b\.mp4: "):
        cut_footage([tmp_path], tmp_path / "out", SETTINGS)


def test_the_folder_itself_and_hidden_files_are_no_sources(videos: Path) -> None:
    (videos / ".b.mp4").write_bytes(b"")
    first = cut_footage([videos], videos / "clips of these", SETTINGS)
    again = cut_footage([videos], videos / "clips of these", SETTINGS)
    assert again == first
    assert len(again.records) == 2


def test_the_text_beside_a_video_is_its_caption(videos: Path, tmp_path: Path) -> None:
    (videos / "a.txt").write_text("stripes wander\n  to the right\n")
    clips = cut_footage([videos], tmp_path / "out", SETTINGS).clips
    captions = {clip.truth["source"]: clip.caption for clip in clips}
    assert captions == {"a.mp4": "stripes wander to the right", "more/b.mp4": ""}


def test_credits_are_kept_and_that_of_an_asset_is_known(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = sources.file_sha256(videos / "a.mp4")
    monkeypatch.setattr(sources, "ASSETS", {"film": replace(BIG_BUCK_BUNNY, digests={"film": film})})
    cut_footage([videos / "more"], tmp_path / "out", SETTINGS, credit="Ada")
    made = cut_footage([videos / "a.mp4"], tmp_path / "out", SETTINGS, credit="Ada")
    assert [record.credit for record in made.records] == ["Ada", BIG_BUCK_BUNNY.credit]
    assert read_world(tmp_path / "out")["credits"] == ["Ada", BIG_BUCK_BUNNY.credit]


def plan(*shots: int, rate: float = 24.0, **settings: float) -> Plan:
    first = np.cumsum([0, *shots])[:-1].tolist()
    cut = [Shot(first=at, frames=frames) for at, frames in zip(first, shots, strict=True)]
    return plan_pieces(cut, rate, replace(SETTINGS, **settings))  # pyright: ignore[reportArgumentType]


def test_skipped_seconds_shorten_or_drop_shots_but_renumber_none() -> None:
    cut = plan(24, 24, 24, skip_start=1.5, skip_end=0.75)
    assert [(p.shot, p.indices[0], p.indices[-1]) for p in cut.pieces] == [(1, 36, 45), (2, 48, 53)]
    assert (cut.shots, cut.short_shots, cut.rest_frames) == (2, 0, 2)
    assert plan(24, skip_end=2.0).pieces == []


def test_no_more_pieces_of_a_shot_than_asked() -> None:
    shots = [Shot(first=0, frames=33), Shot(first=33, frames=12)]
    cut = plan_pieces(shots, 24.0, SETTINGS, per_shot=2)
    assert [(p.shot, p.indices[0], p.indices[-1]) for p in cut.pieces] == [(0, 0, 9), (0, 10, 19), (1, 33, 42)]
    assert cut.rest_frames == 13 + 2


def test_a_lower_rate_leaves_frames_out_and_a_higher_one_adds_none() -> None:
    _, piece = plan(7, 20, rate=30.0, fps=12.0, min_frames=3).pieces
    assert piece.indices == (7, 9, 12, 14, 17, 19, 22, 24)
    halved = plan(20, rate=30000 / 1001, fps=14.985015).pieces
    assert halved[0].indices == tuple(range(0, 20, 2))
    assert plan(20, rate=10.0, fps=12.0).pieces == plan(20, rate=10.0).pieces


def test_clips_of_a_lower_rate_say_so(videos: Path, tmp_path: Path) -> None:
    (clip,) = cut_footage([videos / "a.mp4"], tmp_path / "out", replace(SETTINGS, fps=8.0)).clips
    assert (clip.fps, clip.frames) == (8.0, 8)
    assert read_video(tmp_path / "out" / clip.path)[1] == 8.0


def test_clip_batches_read_the_folder(videos: Path, tmp_path: Path) -> None:
    made: Footage = cut_footage([videos], tmp_path / "out", replace(SETTINGS, heldout=0.0))
    batches = ClipBatches(tmp_path / "out", (Stage(until=1, draws=(Draw(clips=2, frames=8),)),), seed=0)
    assert sum(len(group.clips) for group in batches.groups) == len(made.clips)
    assert batches.batch(0, 0).shape == (2, 3, 8, 64, 64)
