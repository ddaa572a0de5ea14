"""Preparing a set: the same bytes however it was interrupted, every file used or listed, thresholds for free."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("scenedetect")

from benchmarks.data_prepare import contents
from benchmarks.data_videos import encode, odd_files, picture
from openltx.cli import main
from openltx.data.datasets import ClipBatches, Draw
from openltx.data.datasets import Stage as Curriculum
from openltx.data.manifest import read_manifest
from openltx.data.prepare import looking
from openltx.data.prepare.records import read_records
from openltx.data.prepare.run import Prepared, prepare
from openltx.data.prepare.settings import (
    BucketSettings,
    CutSettings,
    ExportSettings,
    MotionSettings,
    OverlaySettings,
    PrepareSettings,
    SharpnessSettings,
)
from openltx.data.prepare.workers import Processes
from openltx.errors import DataError
from openltx.media.io import read_video

SETTINGS = PrepareSettings(
    cut=CutSettings(frames=33, min_frames=17),
    sharpness=SharpnessSettings(max_blur=1.0),
    overlay=OverlaySettings(max_share=1.0),
    bucket=BucketSettings(sizes=("96x64x17", "64x96x17", "96x64x33")),
    export=ExportSettings(heldout=0.3, shards="webdataset", per_shard=3),
)
REPOSITORY = Path(__file__).parents[3]


def alone() -> Processes:
    return Processes(1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of three shots with bars, an upright one, a still one, a copy of the second, and two that are none."""
    folder = tmp_path_factory.mktemp("videos")
    film = np.concatenate([picture(frames, seed=seed) for seed, frames in ((1, 40), (2, 20), (3, 8))])
    film[:, :12] = film[:, 84:] = 0
    encode(folder / "film.mp4", film)
    upright = picture(20, seed=4, size=(128, 96))
    encode(folder / "upright.mp4", upright)
    encode(folder / "upright-again.mkv", upright, crf=30)
    encode(folder / "still.mp4", np.repeat(picture(1, seed=5), 20, axis=0))
    (folder / "film.txt").write_text("The video shows coloured  boxes. They drift.")
    (folder / "none.mp4").write_bytes(b"none")
    (folder / "same.mp4").write_bytes((folder / "film.mp4").read_bytes())
    return folder


@pytest.fixture(scope="module")
def made(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare([videos], tmp_path_factory.mktemp("made"), SETTINGS, runner=alone(), credit="Ada")


def test_what_is_kept_and_why_the_rest_is_not(made: Prepared) -> None:
    kept = {(r.source, r.shot, r.bucket) for r in made.records if not r.dropped}
    assert kept == {
        ("film.mp4", 0, "96x64x33"),
        ("film.mp4", 1, "96x64x17"),
        ("upright.mp4", 0, "64x96x17"),
    } or kept == {
        ("film.mp4", 0, "96x64x33"),
        ("film.mp4", 1, "96x64x17"),
        ("upright-again.mkv", 0, "64x96x17"),
    }
    reasons = {r.source: r.dropped for r in made.records if r.dropped}
    assert reasons["still.mp4"][0].startswith("static")
    assert any(
        "looks like" in why for source in ("upright.mp4", "upright-again.mkv") for why in reasons.get(source, ())
    )
    assert {r.source: r.reason for r in made.rejected}.keys() == {"none.mp4", "same.mp4"}
    assert [r.credit for r in made.records] == ["Ada"] * len(made.records)


def test_clips_are_the_pictures_without_their_bars(made: Prepared, videos: Path) -> None:
    clip = next(c for c in made.clips if c.truth["source"] == "film.mp4" and c.truth["shot"] == 0)
    stored, fps = read_video(made.folder / clip.path)
    assert (stored.shape, fps) == ((33, 64, 96, 3), 24.0)
    assert stored[:, :2].max() > 60
    assert clip.caption == "Coloured boxes. They drift."
    film, _ = read_video(videos / "film.mp4", 0, 1)
    middle = film[0][40:56, 56:72].astype(float).mean()
    assert abs(stored[0][26:38, 42:54].astype(float).mean() - middle) < 12


def test_the_loader_mixes_the_buckets(made: Prepared) -> None:
    draws = (Draw(clips=1, frames=17), Draw(clips=1, frames=33))
    stages = [Curriculum(until=1, draws=draws)]
    batches = ClipBatches({made.folder: 1.0}, stages, seed=0, split=made.clips[0].split)
    assert {tuple(batches.batch(step, 0).shape[1:]) for step in range(12)} <= {
        (3, 17, 64, 96),
        (3, 33, 64, 96),
        (3, 17, 96, 64),
    }


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # its reader's
def test_shards_hold_every_clip_as_webdataset_reads_it(made: Prepared) -> None:
    found: Counter[str] = Counter()
    for path in made.shards:
        with tarfile.open(path) as tar:
            for member in tar:
                found[member.name.split(".")[0]] += 1
                assert member.mtime == 0
    assert found == {Path(clip.path).stem: 3 for clip in made.clips}
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset([str(p) for p in made.shards], shardshuffle=False).decode())
    assert {s["json"]["path"] for s in samples} == {clip.path for clip in made.clips}
    assert all(s["mp4"][4:8] == b"ftyp" for s in samples)


def test_parquet_holds_the_same(made: Prepared, videos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    settings = replace(SETTINGS, export=replace(SETTINGS.export, shards="parquet"))
    other = prepare([videos], tmp_path / "set", settings, runner=alone())
    rows = [row for path in other.shards for row in parquet.read_table(path).to_pylist()]
    assert {row["path"]: row["video"] for row in rows} == {
        clip.path: (made.folder / clip.path).read_bytes() for clip in made.clips
    }


def test_several_workers_give_the_same_bytes(made: Prepared, videos: Path, tmp_path: Path) -> None:
    prepare([videos], tmp_path / "set", SETTINGS, runner=Processes(2), credit="Ada")
    assert contents(tmp_path / "set") == contents(made.folder)


def test_a_run_stopped_in_every_pass_ends_with_the_same_bytes(made: Prepared, videos: Path, tmp_path: Path) -> None:
    for title, stop in (("ingest", 1), ("ingest", 3), ("look", 2), ("write", 1), ("shards", 1)):

        def tell(now: str, done: int, total: int, title: str = title, stop: int = stop) -> None:
            if now == title and done >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare([videos], tmp_path / "set", SETTINGS, runner=alone(), credit="Ada", progress=tell)
    prepare([videos], tmp_path / "set", SETTINGS, runner=alone(), credit="Ada")
    assert contents(tmp_path / "set") == contents(made.folder)


def test_kill_minus_nine_leaves_nothing_to_repair(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS.to_json()))
    command = [
        sys.executable,
        "-m",
        "openltx",
        "data",
        "prepare",
        str(videos),
        "--config",
        str(tmp_path / "config.json"),
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*command[3:], "--out", str(whole), "--workers", "1"]) == 0
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for sign in ("ingest.jsonl", "look.jsonl"):
        process = subprocess.Popen(
            [*command, "--out", str(broken)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not (broken / ".work" / sign).is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with (broken / ".work" / sign).open("a") as journal:
            journal.write('{"key": "half a li')
    assert main([*command[3:], "--out", str(broken), "--workers", "1"]) == 0
    assert contents(broken) == contents(whole)


@dataclass(frozen=True)
class DeadlyCaptioner:
    """Kills its process before its first caption."""

    mark: Path

    def caption(self, pictures: Sequence[Image.Image]) -> str:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return f"Boxes, {len(pictures)} times."


def test_ray_makes_the_same_set_although_a_worker_is_killed(videos: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from openltx.data.prepare.ray_workers import RayWorkers

    captioner = DeadlyCaptioner(tmp_path / "dead")
    try:
        prepare([videos], tmp_path / "ray", SETTINGS, runner=RayWorkers(2), captioner=captioner)
    finally:
        ray.shutdown()
    assert captioner.mark.exists()
    made = prepare([videos], tmp_path / "set", SETTINGS, runner=alone(), captioner=captioner)
    assert {clip.caption for clip in made.clips} == {"Boxes, 5 times."}
    assert contents(tmp_path / "ray") == contents(tmp_path / "set")


def test_other_thresholds_decode_nothing_again(
    made: Prepared, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare([videos], tmp_path / "set", SETTINGS, runner=alone())
    monkeypatch.setattr(looking, "looks", None)
    monkeypatch.setattr("openltx.data.prepare.ingest.survey", None)
    slower = replace(SETTINGS, motion=MotionSettings(min_speed=-1.0, max_frozen=99.0, max_jitter=9.0))
    again = prepare([videos], tmp_path / "set", slower, runner=alone())
    assert {c.truth["source"] for c in again.clips} - {c.truth["source"] for c in made.clips} == {"still.mp4"}
    assert set(read_manifest(tmp_path / "set")[0].truth) == {"source", "shot", "first_frame", "id"}
    assert [r.id for r in read_records(tmp_path / "set")] == [r.id for r in made.records]


def test_odd_files_are_used_or_listed_with_a_reason(tmp_path: Path) -> None:
    expected = odd_files(tmp_path / "odd")
    settings = replace(
        SETTINGS,
        bucket=BucketSettings(sizes=("96x64x17", "64x96x17"), max_enlarged=4.0, min_kept=0.3),
        motion=MotionSettings(min_speed=-1.0, max_frozen=99.0, max_jitter=9.0),
        export=ExportSettings(),
    )
    made = prepare([tmp_path / "odd"], tmp_path / "set", settings, runner=alone())
    listed = {rejection.source: rejection.reason for rejection in made.rejected}
    assert {name: name not in listed for name in expected} == expected
    assert all(len(reason) > 10 for reason in listed.values())
    used = {clip.truth["source"] for clip in made.clips}
    assert used == {name for name, usable in expected.items() if usable}
    turned = next(r for r in made.records if r.source == "turned.mp4")
    assert (turned.height, turned.width) == (128, 96)
    for clip in made.clips:
        assert read_video(made.folder / clip.path)[0].shape == (clip.frames, clip.height, clip.width, 3)


def test_an_uneven_rate_becomes_an_even_one(tmp_path: Path) -> None:
    """Each frame's number is its brightness: the frame on show at every tick is taken."""
    shown = np.array([8, 8, 40, 8, 24, 8, 8, 8, 40, 8, 8, 8, 8, 24, 8, 8, 8, 8, 8, 8, 8, 40, 8, 8])
    starts = np.concatenate([[0], np.cumsum(shown)[:-1]])
    frames = picture(24, seed=1, size=(64, 96))
    frames[:, 24:40, 40:56] = (8 * np.arange(24) + 20)[:, None, None, None]
    encode(tmp_path / "a.mp4", frames, ticks=starts.tolist(), pix_fmt="yuv444p")
    settings = replace(
        SETTINGS,
        cut=CutSettings(frames=33, min_frames=9),
        bucket=BucketSettings(sizes=("96x64x33",)),
        motion=MotionSettings(min_speed=-1.0, max_frozen=99.0, max_jitter=9.0),
        export=ExportSettings(),
    )
    made = prepare([tmp_path / "a.mp4"], tmp_path / "set", settings, runner=alone())
    (clip,) = made.clips
    assert clip.fps == pytest.approx(30.0)
    stored, _ = read_video(made.folder / clip.path)
    numbers = ((stored[:, 28:36, 44:52].mean((1, 2, 3)) - 20) / 8).round().astype(int)
    ticks = np.arange(33) * 8
    assert numbers.tolist() == (np.searchsorted(starts, ticks, side="right") - 1).tolist()


def test_the_command_tells_what_it_did(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text(
        json.dumps({"cut": {"frames": 33, "min_frames": 17}, "sharpness": {"max_blur": 1.0}})
    )
    command = ["data", "prepare", str(videos), "--out", str(tmp_path / "set"), "--config", str(tmp_path / "c.json")]
    assert main([*command, "--bucket", "96x64x17", "64x96x17", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    for part in ("kept", "near-duplicate", "static", "not used: none.mp4: ", "kept.png", "dropped.png"):
        assert part in printed
    early = ["data", "prepare", str(videos), "--out", str(tmp_path / "early"), "--until", "ingest", "--workers", "1"]
    assert main(early) == 0
    assert "kept.png" in capsys.readouterr().out
    assert main([*command, "--fps", "12"]) == 2
    assert "was made with fps None, not 12.0" in capsys.readouterr().err
    (tmp_path / "c.json").write_text(json.dumps({"motion": {"min_sped": 3}}))
    assert main(command) == 2
    assert 'Did you mean "min_speed"?' in capsys.readouterr().err


def test_a_run_may_end_after_any_pass_and_go_on(made: Prepared, videos: Path, tmp_path: Path) -> None:
    for until in ("ingest", "look", "caption"):
        part = prepare([videos], tmp_path, SETTINGS, runner=alone(), credit="Ada", until=until)
        assert part.clips == []
        assert [record.id for record in read_records(tmp_path)] == [record.id for record in made.records]
        assert any(record.dropped for record in part.records) == (until != "ingest")
        assert any(record.caption == "Coloured boxes. They drift." for record in part.records) == (until == "caption")
        assert not list(tmp_path.rglob("*.mp4"))
    prepare([videos], tmp_path, SETTINGS, runner=alone(), credit="Ada")
    assert contents(tmp_path) == contents(made.folder)


def test_videos_are_described_and_their_shots_listed(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "probe", str(videos)]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "upright.mp4" in line)
    assert line.split()[1:4] == ["96x128", "24", "20"]
    assert "cannot be used: none.mp4: " in printed
    assert main(["data", "scenes", str(videos / "film.mp4")]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["shot", "first_frame", "frames", "seconds"]
    assert [row[1:3] for row in rows[1:]] == [["0", "40"], ["40", "20"], ["60", "8"]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bucket": {"sizes": ["100x64x17"]}}, "Near it: 96x64x17"),
        ({"cut": {"frames": "many"}}, "cannot be 'many'"),
        ({"cut": {"detector": "eyes"}}, "cannot be 'eyes'"),
        ({"caption": {"backend": "endpoint", "model": "x"}}, "--caption-url"),
        ({"export": {"heldout": 1}}, "from 0 to below 1"),
        ([], "must be an object"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(given))
    with pytest.raises(DataError, match=said):
        PrepareSettings.read(tmp_path / "c.json")


def test_settings_survive_json(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(SETTINGS.to_json()))
    assert PrepareSettings.read(tmp_path / "c.json") == SETTINGS
