"""``openltx generate --window``: the file, what is said, and what Ctrl-C leaves."""

import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from openltx import GenerationRequest
from openltx.cli import main
from openltx.media.io import read_metadata, read_video
from openltx.pipelines.long import LongVideo
from openltx.recipes import opening

LINE = ["--frames", "41", "--steps", "2", "--seed", "7", "--window", "17", "--overlap", "9"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def interrupt_in(window: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = LongVideo._sample

    def interrupted(self: LongVideo, plan: object, now: object, *rest: object) -> object:
        if now.index == window:  # type: ignore[attr-defined]  # a Window
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return sample(self, plan, now, *rest)  # type: ignore[arg-type]  # what it was called with

    monkeypatch.setattr(LongVideo, "_sample", interrupted)


def test_a_long_video_with_a_prompt_that_changes(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["generate", "a ball rolls | it stops", *LINE, "--adain", "0.2", "--overlap-strength", "0.8"]
    assert main([*line, "--model", str(tiny_checkpoint), "-o", "a.mp4", "--contact-sheet", "sheet.png"]) == 0
    assert "a.mp4  41 frames, 64x32, 8 fps, 4 of 4 windows, seed 7," in capsys.readouterr().out
    assert len(read_video("a.mp4")[0]) == 41
    metadata = read_metadata("a.mp4")
    assert GenerationRequest.from_json(metadata["request"]).prompt == "a ball rolls | it stops"
    assert json.loads(metadata["windows"]) == {"window": 17, "overlap": 9, "overlap_strength": 0.8, "adain": 0.2}
    with Image.open("sheet.png") as sheet:
        assert sheet.height > 4 * 64  # a row for each window
    assert main(["inspect", "a.mp4"]) == 0
    assert '"overlap": 9' in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_in(2, 1, patch)
        assert main(["generate", "a ball", *LINE, "--model", str(tiny_checkpoint), "-o", "a.mp4"]) == 130
    said = capsys.readouterr().out
    assert "a.mp4  25 frames, 64x32, 8 fps, 2 of 4 windows" in said
    assert "--frames 25 --window 17 --keyframes 'a.mp4[-9:]@0'" in said
    assert len(read_video("a.mp4")[0]) == 25
    more = ["--frames", "25", "--window", "17", "--overlap", "9", "--keyframes", "a.mp4[-9:]@0", "-o", "b.mp4"]
    assert main(["generate", "a ball", *more, "--model", str(tiny_checkpoint)]) == 0
    assert len(read_video("b.mp4")[0]) == 25


@pytest.mark.parametrize(("window", "times"), [(0, 1), (2, 2)])
def test_ctrl_c_in_the_first_window_or_twice_leaves_nothing(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, window: int, times: int
) -> None:
    interrupt_in(window, times, monkeypatch)
    before = signal.getsignal(signal.SIGINT)
    assert main(["generate", "a ball", *LINE, "--model", str(tiny_checkpoint), "-o", "a.mp4"]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--overlap", "9"], "--window"),
        (["--window", "16"], "9 and 17"),
        (["--window", "25", "-o", "a.gif"], "only .mp4"),
        (["--window", "17", "--overlap", "9", "--frames", "40"], "33 or 41"),
        (["--window", "17", "--overlap", "9", "--reference", "a.mp4"], "no reference"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_loaded(
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(opening, "load", None)
    assert main(["generate", "a ball", "--model", str(tiny_checkpoint), *words]) == 2
    assert message in capsys.readouterr().err
