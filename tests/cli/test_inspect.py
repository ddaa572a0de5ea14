"""``openltx inspect``: what a video and a weight file say about themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

import openltx
from openltx import LTXModel
from openltx.cli import main
from openltx.media.io import write_video


def test_a_videos_request_can_be_read_back(
    tiny_model: LTXModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = openltx.generate(tiny_model, "a [red] ball", seed=3)
    video.save(tmp_path / "ball.mp4")
    assert main(["inspect", str(tmp_path / "ball.mp4"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["request"] == json.loads(video.request.to_json())
    assert main(["inspect", str(tmp_path / "ball.mp4")]) == 0
    page = capsys.readouterr().out
    assert "a [red] ball" in page
    assert tiny_model.fingerprint in page


def test_a_weight_file_shows_config_tensors_and_hash(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_checkpoint), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["sha256"]) == 64
    assert shown["config"]["transformer"]["num_layers"] == 2
    assert shown["metadata"]["openltx.sampling"]["steps"] == 3
    names = {tensor["name"] for tensor in shown["tensors"]}
    assert "model.diffusion_model.patchify_proj.weight" in names
    assert main(["inspect", str(tiny_checkpoint)]) == 0
    page = capsys.readouterr().out
    assert shown["sha256"] in page
    assert "model.diffusion_model.patchify_proj.weight" in page


def test_a_video_of_somebody_else_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "other.mp4", np.zeros((2, 32, 32, 3), np.uint8), 8.0)
    assert main(["inspect", str(tmp_path / "other.mp4")]) == 2
    assert "carries no request" in capsys.readouterr().err
