"""``openltx train``, all four steps, with the recipe made tiny."""

from pathlib import Path

import pytest

import openltx
from openltx.cli import main
from openltx.data.datasets import Stage
from openltx.models.presets import transformer_preset, vae_preset
from openltx.recipes import playroom

SAMPLING = {"frames": 9, "width": 64, "height": 32, "fps": 24.0, "steps": 2, "cfg": 2.0, "last_step": "decoder"}


@pytest.fixture
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playroom, "VAE", vae_preset("tiny"))
    monkeypatch.setattr(playroom, "VAE_STAGES", (Stage(until=9, clips=1, frames=9),))
    monkeypatch.setattr(playroom, "TRANSFORMER", transformer_preset("tiny"))
    monkeypatch.setattr(playroom, "SAMPLING", SAMPLING)
    monkeypatch.setattr(playroom, "SAMPLE_PROMPTS", ("a red ball",))


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


@pytest.mark.usefixtures("tiny_recipe")
def test_the_four_steps_lead_from_clips_to_a_model_that_generates(clip_folder: Path, tmp_path: Path) -> None:
    train = ("train", "vae", "playroom", "--data", clip_folder, "--out", tmp_path / "vae", "--steps", "1")
    assert run(*train) == 0
    assert run("train", "export", "playroom", "--vae-run", tmp_path / "vae", "-o", tmp_path / "vae.safetensors") == 0
    source = ("--vae", tmp_path / "vae.safetensors")
    assert run("train", "latents", "playroom", "--data", clip_folder, *source, "--out", tmp_path / "latents") == 0
    flow = ("train", "flow", "playroom", "--latents", tmp_path / "latents", *source, "--out", tmp_path / "flow")
    assert run(*flow, "--steps", "1") == 0
    model = tmp_path / "model.safetensors"
    assert run("train", "export", "playroom", *source, "--flow-run", tmp_path / "flow", "-o", model) == 0
    video = openltx.generate(openltx.load(model, device="cpu"), prompt="a red ball", seed=0)
    assert video.frames.shape == (9, 32, 64, 3)


def test_an_unknown_recipe_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("train", "vae", "playrom", "--data", tmp_path, "--out", tmp_path / "run") == 2
    assert 'no recipe "playrom"' in capfd.readouterr().err


def test_an_export_says_where_the_vae_may_come_from(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("train", "export", "playroom", "-o", tmp_path / "model.safetensors") == 2
    assert "--vae-run" in capfd.readouterr().err
