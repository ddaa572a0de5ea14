"""The suite: scores with intervals, paired comparisons, and the commands from prompts to reports."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.cache import cache_folder
from openltx.cli import main
from openltx.errors import DataError
from openltx.eval import paired, suite
from openltx.eval.image_text import MobileNetFeatures
from openltx.eval.probe import load_probe
from openltx.eval.suite import Lookers, Score
from openltx.eval.videos import Entry, read_prompts, read_videos, short_names
from openltx.media.io import read_video, write_video
from openltx.models.mobilenet import MobileNetV2

PROMPTS = ["a red ball rolls", "two cubes fall"]


def silent(done: int, total: int) -> None:
    pass


@pytest.fixture(autouse=True)
def no_assets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without other people's weights, but with the compiled kernels, so that these are not built anew."""
    folder, kernels = tmp_path_factory.mktemp("cache"), cache_folder() / "kernels"
    if kernels.is_dir():
        (folder / "kernels").symlink_to(kernels)
    monkeypatch.setenv("OPENLTX_CACHE", str(folder))


@pytest.fixture(scope="module")
def encoder() -> MobileNetFeatures:
    """MobileNetV2 with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MobileNetFeatures(MobileNetV2())


class Reader:
    """An image-text model that sees the mean colour, and reads "red" or else blue."""

    name = "reader"

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.mean((2, 3)) + 1).clamp_min(1e-3)

    def texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0, 0] if "red" in text else [0, 0, 1.0] for text in texts])


def paint(folder: Path, colour: tuple[int, int, int], flicker: int = 0, count: int = 6) -> list[Entry]:
    """Videos of one colour, whose brightness jumps by ``flicker``."""
    folder.mkdir()
    for index in range(count):
        frames = np.stack(
            [np.full((32, 32, 3), colour, np.uint8) // 2 + flicker * (f % 2) + 10 * index for f in range(9)]
        )
        write_video(folder / f"{index}.mp4", frames, 8.0)
    (folder.parent / "prompts.txt").write_text("a red wall\n" * count)
    return read_videos(folder, read_prompts(folder.parent / "prompts.txt"))


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.name: score for score in scores}


def test_every_score_has_a_value_an_interval_and_a_count(tmp_path: Path, encoder: MobileNetFeatures) -> None:
    red = paint(tmp_path / "red", (240, 0, 0))
    lookers = Lookers(subject=encoder, background=encoder, image_text=Reader(), frechet=encoder)
    reference = suite.set_features(encoder, red, silent)
    scores = by_name(suite.score(red, lookers, reference, silent))
    assert set(scores) == {
        "temporal_flickering", "motion_smoothness_dis", "dynamic_degree_dis", "subject_consistency_mobilenet_v2",
        "background_consistency_mobilenet_v2", "prompt_adherence_reader", "frechet_mobilenet_v2",
        "frechet_mobilenet_v2_reduced",
    } - ({"frechet_mobilenet_v2_reduced"} if sum(map(len, reference)) < 10 else set())  # fmt: skip
    for score in scores.values():
        assert score.estimate.n == 6
        assert score.estimate.low is not None
        assert score.estimate.high is not None
        assert score.estimate.low - 1e-9 <= score.estimate.value <= score.estimate.high + 1e-9
    assert scores["frechet_mobilenet_v2"].estimate.value == pytest.approx(0, abs=1e-9)
    assert scores["dynamic_degree_dis"].estimate.value == 0


def test_the_better_of_two_sets_is_told_in_every_measure_that_knows(tmp_path: Path) -> None:
    red, blue = paint(tmp_path / "red", (240, 0, 0)), paint(tmp_path / "blue", (0, 0, 240), flicker=20)
    lookers = Lookers(image_text=Reader())
    a, b = (suite.score(entries, lookers, None, silent) for entries in (red, blue))
    found = {each.name: each for each in paired.differences(a, b)}
    assert found["temporal_flickering"].verdict == "A"
    assert found["prompt_adherence_reader"].verdict == "A"
    assert found["temporal_flickering"].wins == 0
    same = {each.name: each for each in paired.differences(a, a)}
    assert all(each.verdict == "undecided" and each.difference.value == 0 for each in same.values())
    assert same["prompt_adherence_reader"].wins == 0.5


def test_pairing_finds_a_difference_that_is_small_beside_the_spread() -> None:
    spread = np.random.default_rng(0).standard_normal(40)
    a = Score(name="x", better="lower", estimate=suite.mean_of(spread.tolist()), values=tuple(spread.tolist()))  # pyright: ignore
    values = (spread + 0.05 + 0.02 * np.random.default_rng(1).standard_normal(40)).tolist()
    b = Score(name="x", better="lower", estimate=suite.mean_of(values), values=tuple(values))  # pyright: ignore
    (found,) = paired.differences([a], [b])
    assert a.estimate.high is not None
    assert a.estimate.high > b.estimate.value  # each by itself would not tell
    assert found.verdict == "A"


def test_playrooms_scenes_are_judged_where_they_are_known(clip_folder: Path) -> None:
    entries = read_videos(clip_folder)
    assert [entry.prompt for entry in entries] == [clip.caption for clip in suite_clips(entries)]
    scores = by_name(suite.score(entries, Lookers(probe=load_probe()), None, silent))
    assert scores["playroom_all_correct"].estimate.n == 2
    assert 0 <= scores["playroom_all_correct"].estimate.value <= scores["playroom_colour"].estimate.value <= 1


def suite_clips(entries: list[Entry]) -> list:
    return [entry.clip for entry in entries]


def test_the_command_makes_videos_once_measures_them_and_writes_everything(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n\n")
    out = tmp_path / "out"
    line = [
        "eval",
        "suite",
        "--model",
        str(tiny_checkpoint),
        "--prompts",
        str(prompts),
        "--steps",
        "1",
        "--out",
        str(out),
    ]
    assert main(line) == 0
    assert "Without MobileNetV2" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert [video["prompt"] for video in report["videos"]] == PROMPTS
    scores = report["scores"]
    assert scores["peak_memory_gib"]["n"] == scores["seconds"]["n"] == 2
    assert scores["temporal_flickering"]["low"] <= scores["temporal_flickering"]["value"] < 1
    assert set(report["per_video"]["0001"]) == set(scores) - {"peak_memory_gib"}
    assert "| temporal_flickering |" in (out / "report.md").read_text()
    page = (out / "report.html").read_text()
    inside = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)
    assert [base64.b64decode(each) for each in inside] == [p.read_bytes() for p in sorted((out / "videos").iterdir())]
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert (out / "contact_sheet.png").is_file()
    written = {path: path.stat().st_mtime_ns for path in (out / "videos").iterdir()}
    (out / "videos" / "0001.mp4").unlink()
    assert main(line) == 0
    assert (out / "videos" / "0000.mp4").stat().st_mtime_ns == written[out / "videos" / "0000.mp4"]
    assert main([*line, "--seed", "1"]) == 0
    assert (out / "videos" / "0000.mp4").stat().st_mtime_ns != written[out / "videos" / "0000.mp4"]


def test_two_models_are_compared_on_the_same_seeds(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_checkpoint.read_bytes())
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    out = tmp_path / "out"
    line = ["eval", "compare", str(tiny_checkpoint), str(other), "--prompts", str(prompts), "--steps", "1"]
    assert main([*line, "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["differences"]["temporal_flickering"]["difference"]["value"] == 0
    assert report["differences"]["temporal_flickering"]["verdict"] == "too few"
    assert (read_video(out / "videos/tiny/0000.mp4")[0] == read_video(out / "videos/other/0000.mp4")[0]).all()
    assert (out / "report.html").read_text().count("<video") == 4
    folders = [str(out / "videos" / name) for name in ("tiny", "other")]
    assert main(["eval", "compare", *folders, "--out", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["prompts"] == report["prompts"]
    assert again["differences"] == report["differences"]


def test_what_cannot_be_measured_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "suite", "--videos", str(tmp_path)]) == 2
    assert "no videos in it" in capsys.readouterr().err
    paint(tmp_path / "red", (240, 0, 0), count=1)
    paint(tmp_path / "blue", (0, 0, 240), count=1)
    (tmp_path / "blue" / "0.mp4").rename(tmp_path / "blue" / "1.mp4")
    assert main(["eval", "compare", str(tmp_path / "red"), str(tmp_path / "blue")]) == 2
    assert "no video of the same name" in capsys.readouterr().err
    assert main(["eval", "compare", str(tmp_path / "red"), "playroom"]) == 2
    assert "--prompts" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n["b"]\n')
    with pytest.raises(DataError, match=r"bad.jsonl:2"):
        read_prompts(tmp_path / "bad.jsonl")
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="1 videos, and there are 2 prompts"):
        read_videos(tmp_path / "red", read_prompts(tmp_path / "two.txt"))


def test_names_are_short_and_differ() -> None:
    assert short_names([Path("x/a.safetensors"), Path("y/b")]) == ["a", "b"]
    assert short_names([Path("x/videos"), Path("y/videos")]) == ["x-videos", "y-videos"]
    with pytest.raises(DataError, match="cannot be told apart"):
        short_names([Path("x/a"), Path("x/a")])
