"""The evaluation of generated videos: real renders pass, planted failures do not, and the command runs end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from openltx.cli import main
from openltx.data.manifest import Clip
from openltx.eval import playroom
from openltx.eval.clips import clips_to_measure
from openltx.eval.probe import load_probe
from openltx.media.io import read_video

COUNT = 10


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Clip]]:
    """Held-out clips of the evaluation's own world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENLTX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return clips_to_measure(COUNT, seed=1)


@pytest.fixture(scope="module")
def exchanged(rendered: tuple[Path, list[Clip]]) -> list[playroom.Trial]:
    """Trials in which every prompt got the real video of the next one."""
    folder, clips = rendered

    def next_clip(clip: Clip, index: int, picture: Path | None) -> np.ndarray:
        return read_video(folder / clips[(index + 1) % len(clips)].path)[0]

    return list(playroom.text_trials(next_clip, load_probe(), folder, clips))


def test_real_clips_pass_and_those_of_other_prompts_do_not(exchanged: list[playroom.Trial]) -> None:
    found = playroom.scores(exchanged)
    assert all(found["real"][name] >= 0.8 for name in ("colour", "motion", "shape"))
    assert found["real"]["all_correct"] >= 0.6
    assert found["generated"]["all_correct"] <= 0.1
    assert found["generated"]["colour"] <= 0.4


def test_the_report_counts_what_the_trials_say(exchanged: list[playroom.Trial]) -> None:
    report = playroom.summarise(exchanged, [])["text_to_video"]
    right = sum(trial["real"]["motion"] for trial in report["trials"])
    assert report["real"]["motion"] == pytest.approx(right / COUNT)
    assert sum(group["prompts"] for group in report["by_event"].values()) == COUNT
    assert report["ratio"]["motion"] == pytest.approx(report["generated"]["motion"] / report["real"]["motion"])


def test_frozen_videos_lose_their_motion(rendered: tuple[Path, list[Clip]]) -> None:
    folder, clips = rendered
    moving = [clip for clip in clips if clip.truth["event"] != "still"][:4]
    for clip in moving:
        middle, _ = read_video(folder / clip.path, start=clip.frames // 2, count=1)
        assert not playroom.verdict_of(load_probe(), middle.repeat(clip.frames, axis=0), clip).motion


def test_a_kept_first_frame_is_told_from_a_lost_one_and_a_lost_colour_too(
    rendered: tuple[Path, list[Clip]], tmp_path: Path
) -> None:
    folder, clips = rendered

    def washed_out(clip: Clip, index: int, picture: Path | None) -> np.ndarray:
        assert picture is not None
        frames, _ = read_video(folder / clip.path)
        grey = frames.mean(axis=-1, keepdims=True).astype(np.uint8).repeat(3, axis=-1)
        return np.concatenate([frames[:1], grey[1:]])

    chromatic = [clip for clip in clips if clip.truth["objects"][0]["color"] not in ("white", "black")][:4]
    found = list(playroom.image_trials(washed_out, load_probe(), folder, chromatic, tmp_path))
    assert min(trial.first_frame_psnr for trial in found) > 100
    assert not any(trial.colour_kept for trial in found)
    assert sum(trial.colour_kept_in_real for trial in found) >= 3


def test_held_out_clips_are_rendered_once_and_the_first_ones_stay(
    rendered: tuple[Path, list[Clip]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, clips = rendered
    monkeypatch.setenv("OPENLTX_CACHE", str(folder.parents[1]))
    assert all(clip.split == "heldout" for clip in clips)
    written = [(folder / clip.path).stat().st_mtime_ns for clip in clips]
    again = clips_to_measure(COUNT - 4, seed=1)
    assert again == (folder, clips[: COUNT - 4])
    assert [(folder / clip.path).stat().st_mtime_ns for clip in clips] == written


def test_the_command_writes_report_pictures_and_videos(
    tiny_checkpoint: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        "eval",
        "playroom",
        "--prompts",
        "2",
        "--image-to-video",
        "1",
        "--steps",
        "1",
        "--model",
        str(tiny_checkpoint),
    ]
    out = tmp_path / "out"
    assert main([*line, "--data", str(clip_folder), "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["steps"] == 1
    text = report["text_to_video"]
    assert text["prompts"] == len(text["trials"]) == 2
    assert set(text["generated"]) == set(text["real"]) == set(text["ratio"]) == set(playroom.ATTRIBUTES)
    assert 0 < report["image_to_video"]["first_frame_psnr"] < 60
    assert "| colour |" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "videos").iterdir()) == ["image-000.mp4", "text-000.mp4", "text-001.mp4"]
    assert {"contact_sheet.png", "contact_sheet_images.png", "report.md"} <= {path.name for path in out.iterdir()}


def test_asking_for_nothing_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "playroom", "--prompts", "0"]) == 2
    assert "--image-to-video" in capsys.readouterr().err
