"""``openltx upscale``, and the flags of ``openltx generate`` for two passes."""

import json
from pathlib import Path

import numpy as np
import pytest

from openltx.cli import main
from openltx.media.io import read_metadata, read_video, write_video

Files = dict[str, Path]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("clip.mp4", np.random.default_rng(0).integers(0, 255, (9, 32, 64, 3)).astype(np.uint8), 8.0)


def test_a_video_is_enlarged_and_the_file_says_so(
    tiny_checkpoint: Path, upscaler_files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["upscale", "clip.mp4", "--upscaler", str(upscaler_files["both"]), "--model", str(tiny_checkpoint)]
    assert [main([*line, "--seed", "3", "--device", "cpu"]) for _ in range(2)] == [0, 0]
    assert "clip-upscaled.mp4  17 frames, 128x64, 16 fps, seed 3," in capsys.readouterr().out
    frames, fps = read_video("clip-upscaled-2.mp4")
    assert (frames.shape, fps) == ((17, 64, 128, 3), 16)
    assert main(["inspect", "clip-upscaled.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["upscaler"] == "both"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--adain", "2"], "adain=2.0"),
        (["--output", "nowhere/a.mp4"], "no folder"),
        (["--upscaler", "clip.mp4"], "no safetensors file"),
        (["--device", "mps"], "not available"),
    ],
)
def test_a_mistake_is_one_line_and_no_file(
    tiny_checkpoint: Path, upscaler_files: Files, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    flags = {"--upscaler": str(upscaler_files["time"]), "--model": str(tiny_checkpoint), "--device": "cpu"}
    flags |= dict([change])
    assert main(["upscale", "clip.mp4", *(word for pair in flags.items() for word in pair)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["clip.mp4"]


def test_generate_makes_two_passes(
    tiny_checkpoint: Path, upscaler_files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny_checkpoint)
    line = ["generate", "a ball", "--model", model, "--upscaler", str(upscaler_files["space"]), "--size", "96x64"]
    line += ["--second-model", model, "--downscale", "0.7", "--first-pass", "steps=2", "cfg=1", "--device", "cpu"]
    assert main([*line, "--second-pass", "times=[0.9, 0.4]", "stg-mode=residual", "-o", "ball.mp4"]) == 0
    assert "ball.mp4  9 frames, 96x64, 8 fps" in capsys.readouterr().out
    said = json.loads(read_metadata("ball.mp4")["two_pass"])
    assert (said["downscale"], said["first"]["steps"], said["first"]["cfg"]) == (0.7, 2, 1)
    assert (said["second"]["times"], said["second"]["stg_mode"]) == ([0.9, 0.4], "residual")
    assert main(["inspect", "ball.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["two_pass"] == said


def test_two_passes_with_weights_that_pass_through_memory(tiny_checkpoint: Path, upscaler_files: Files) -> None:
    model = str(tiny_checkpoint)
    line = ["generate", "a ball", "--model", model, "--upscaler", str(upscaler_files["space"]), "--size", "96x64"]
    line += ["--second-model", model, "--seed", "7", "--steps", "4", "--device", "cpu", "--contact-sheet", "sheet.png"]
    frames = []
    for residency in ("resident", "streamed"):
        assert main([*line, "--residency", residency, "-o", f"{residency}.mp4"]) == 0
        frames.append(read_video(f"{residency}.mp4")[0])
    assert np.array_equal(*frames)
    assert {"upscaler", "second_model", "two_pass"} <= read_metadata("streamed.mp4").keys()
    assert Path("sheet.png").exists()


def test_generate_refines_a_video_in_time(tiny_checkpoint: Path, upscaler_files: Files) -> None:
    line = ["generate", "a ball", "--video", "clip.mp4", "--upscaler", str(upscaler_files["time"]), "-o", "ball.mp4"]
    assert main([*line, "--model", str(tiny_checkpoint), "--steps", "4"]) == 0
    frames, fps = read_video("ball.mp4")
    assert (frames.shape, fps) == ((17, 32, 64, 3), 16)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--second-model", "x", "--downscale", "0.5"], "second_model, downscale is for two passes"),
        (["--upscaler", "{space}", "--first-pass", "steps"], "write NAME=VALUE"),
        (["--upscaler", "{space}", "--first-pass", "step=3"], '"step" is not a setting'),
        (["--upscaler", "{space}", "--first-pass", "steps=0"], "steps=0 is not possible"),
        (["--upscaler", "{space}", "--first-pass", "steps=many"], "steps='many' is not possible"),
        (["--upscaler", "{space}", "--second-pass", "times=0.5"], "times=0.5 is not possible"),
        (["--upscaler", "{time}"], "need an upscaler for space"),
        (["--upscaler", "missing.safetensors"], "no file missing.safetensors"),
    ],
)
def test_flags_that_make_no_two_passes_are_refused(
    tiny_checkpoint: Path, upscaler_files: Files, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    words = [flag.format(**upscaler_files) for flag in flags]
    assert main(["generate", "a ball", "--model", str(tiny_checkpoint), "--size", "96x96", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in Path().iterdir()] == ["clip.mp4"]
