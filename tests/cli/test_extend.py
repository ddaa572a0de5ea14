"""The commands of docs/usage.md that go on from a video or change it, and what is refused before a model is loaded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openltx import GenerationRequest
from openltx.cli import main
from openltx.media.io import read_metadata, read_video, write_video
from openltx.recipes import opening


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    write_video("clip.mp4", draw.integers(0, 255, (49, 32, 64, 3)).astype(np.uint8), 8.0)
    for name in ("first.png", "last.png"):
        Image.fromarray(draw.integers(0, 255, (32, 64, 3)).astype(np.uint8)).save(name)
    Image.fromarray(np.eye(2).repeat(16, 0).repeat(32, 1).astype(np.uint8) * 255).save("mask.png")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--frames", "41", "--keyframes", "clip.mp4[-25:]@0"], id="forward"),
        pytest.param(["--frames", "41", "--keyframes", "clip.mp4[:25]@16"], id="backward"),
        pytest.param(["--frames", "25", "--image", "first.png", "--keyframes", "last.png@-1"], id="first-and-last"),
        pytest.param(["--frames", "49", "--video", "clip.mp4", "--skip-initial", "1"], id="video-to-video"),
        pytest.param(["--frames", "49", "--video", "clip.mp4", "--mask", "mask.png"], id="edit-in-place"),
    ],
)
def test_each_way_of_giving_a_video_ends_in_a_file(tiny_checkpoint: Path, words: list[str]) -> None:
    line = ["generate", "a ball", *words, "--steps", "2", "--seed", "7", "--model", str(tiny_checkpoint)]
    assert main([*line, "-o", "out.mp4"]) == 0
    request = GenerationRequest.from_json(read_metadata("out.mp4")["request"])
    assert len(read_video("out.mp4")[0]) == request.frames == int(words[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frames", "41", "--keyframes", "clip.mp4@0"], "41 of them"),
        (["--frames", "41", "--keyframes", "clip.mp4[-24:]@0"], "17 of them"),
        (["--frames", "41", "--keyframes", "clip.mp4[:25]@24"], "17 of them"),
        (["--frames", "41", "--keyframes", "clip.mp4[:25]@12"], "8 and 16"),
        (["--frames", "41", "--keyframes", "clip.mp4[60:]@0"], "no frame at all"),
        (["--frames", "41", "--keyframes", "last.png@41"], "frames 0 to 40"),
        (["--frames", "57", "--video", "clip.mp4", "--skip-initial", "1"], "57 are needed"),
        (["--frames", "57", "--video", "clip.mp4", "--mask", "clip.mp4"], "57 are needed"),
        (["--frames", "49", "--video", "clip.mp4", "--mask", "nothing.png"], "nothing.png"),
        (["--frames", "49", "--video", "clip.mp4"], "all noise"),
        (["--frames", "57", "--reference", "clip.mp4"], "57 are needed"),
        (["--frames", "40"], "33 or 41"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_a_model_is_loaded(
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(opening, "load", None)
    assert main(["generate", "a ball", *words, "--model", str(tiny_checkpoint)]) == 2
    assert message in capsys.readouterr().err
