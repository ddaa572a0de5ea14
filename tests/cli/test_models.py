"""``openltx models``, ``pull`` and ``convert``, and models by name in ``generate``: what is printed, and exit codes."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import constants, errors

from openltx import GenerationRequest
from openltx.checkpoints.releases import RELEASES
from openltx.cli import main
from openltx.media.io import read_metadata, read_video


@pytest.fixture(autouse=True)
def _an_empty_cache_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", _refuse)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**12))


def _refuse(*_: object, **__: object) -> str:
    raise errors.LocalEntryNotFoundError("no connection")


def test_every_release_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(RELEASES)
    assert all(row["path"] is None and row["licence"] and row["goes_to"].endswith("hub") for row in rows)
    assert main(["models"]) == 0
    assert "openltx pull NAME" in capsys.readouterr().out


def test_pulling_says_licence_place_and_company(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path
) -> None:
    def download(repo: str, file: str, local_dir: Path) -> str:
        local_dir.mkdir()
        return str(shutil.copy(tiny_checkpoint, local_dir / file))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert main(["pull", "ltxv-2b-0.9.5", "--to", "models"]) == 0
    shown = capsys.readouterr()
    assert "licence: OpenRAIL-M" in shown.out
    assert "models/ltx-video-2b-v0.9.5.safetensors" in shown.out
    assert "goes with: openltx pull t5-xxl" in shown.out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["pull", "ltxv-2b-0.9.5"], "network cannot be reached"),
        (["pull", "ltxv-3b"], "Did you mean ltxv-2b-0.9"),
        (["generate", "a ball", "--model", "ltxv-2b-0.9.5"], "openltx pull ltxv-2b-0.9.5"),
        (["generate", "a ball", "--config", "none.yaml"], "none.yaml cannot be read"),
        (["convert", "none.safetensors", "b.safetensors", "--to", "single-file"], "none.safetensors"),
        (["convert", "a", "b", "--to", "zip"], "single-file"),
        (["inspect", "model.ckpt"], "model.ckpt"),
    ],
)
def test_a_mistake_gets_one_line_and_code_2(line: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected in message


def test_there_and_back_through_the_command_line(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tiny_checkpoint), "folder", "--to", "diffusers"]) == 0
    assert "official.safetensors" in capsys.readouterr().out
    assert main(["convert", "folder", "back.safetensors", "--to", "single-file"]) == 0
    capsys.readouterr()
    assert main(["convert", "folder", "back.safetensors", "--to", "single-file"]) == 2
    assert "--force" in capsys.readouterr().err
    for model in ("folder", "back.safetensors"):
        assert main(["generate", "a ball", "--model", model, "--seed", "3", "-o", f"{model}.mp4"]) == 0
    assert np.array_equal(read_video("folder.mp4")[0], read_video("back.safetensors.mp4")[0])
    capsys.readouterr()
    assert main(["inspect", "folder", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "diffusers folder"
    assert shown["config"]["transformer"]["num_layers"] == 2


def test_an_official_configuration_makes_a_video(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(tiny_checkpoint, "mine.safetensors")
    text = "checkpoint_path: mine.safetensors\nguidance_scale: 2\nstg_scale: 1\nskip_block_list: [1]\n"
    Path("own.yaml").write_text(text + "num_inference_steps: 2\nprompt_enhancement_words_threshold: 120\n")
    line = ["generate", "a ball", "--config", "own.yaml", "--size", "64x32", "--frames", "9", "-o", "ball.gif"]
    assert main(line) == 0
    assert "fewer than 120 words" in capsys.readouterr().err
    request = GenerationRequest.from_json(read_metadata("ball.gif")["request"])
    assert (request.steps, request.cfg, request.stg, request.rescale, request.skip_blocks) == (2, 2.0, 1, 0.7, (1,))


def test_a_recipe_is_a_flag(tiny_checkpoint: Path) -> None:
    line = ["generate", "a ball", "--model", str(tiny_checkpoint), "--recipe", "ltxv-2b-0.9.6-distilled"]
    assert main([*line, "--size", "64x32", "--frames", "9", "-o", "ball.gif"]) == 0
    request = GenerationRequest.from_json(read_metadata("ball.gif")["request"])
    assert (request.stochastic, request.cfg) == (True, 1.0)
