"""``openltx train``, all four steps, with the recipe made tiny."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import openltx
from openltx.checkpoints.load import load_vae
from openltx.cli import main
from openltx.data.datasets import Draw, Stage
from openltx.data.precompute import Precompute
from openltx.models.critic import CriticConfig
from openltx.models.presets import transformer_preset, vae_preset
from openltx.recipes import decoder, film, playroom, playroom_mixed
from openltx.training.adversarial import AdversarialConfig
from openltx.training.distill import DistillConfig

TINY_CRITIC = AdversarialConfig(critic=CriticConfig(channels=8, layers=2))
SAMPLING = {"frames": 9, "width": 64, "height": 32, "fps": 24.0, "steps": 2, "cfg": 2.0, "last_step": "decoder"}


@pytest.fixture
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (Stage(until=9, draws=(Draw(clips=1, frames=9),)),)
    tiny = replace(playroom.VAE_RUN, model=vae_preset("tiny"), stages=stages)
    monkeypatch.setattr(playroom, "VAE_RUN", tiny)
    monkeypatch.setattr(film, "VAE_RUN", replace(film.VAE_RUN, stages=stages, adversarial=TINY_CRITIC))
    monkeypatch.setattr(decoder, "VAE_RUN", replace(decoder.VAE_RUN, stages=stages, decoder_base_channels=8))
    flow = {"transformer": transformer_preset("tiny"), "sampling": SAMPLING, "sample_prompts": ("a red ball",)}
    monkeypatch.setattr(playroom, "FLOW_RUN", replace(playroom.FLOW_RUN, **flow))
    monkeypatch.setattr(playroom_mixed, "FLOW_RUN", replace(playroom_mixed.FLOW_RUN, **flow))


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


@pytest.mark.usefixtures("tiny_recipe")
def test_the_four_steps_lead_from_clips_to_a_model_that_generates(clip_folder: Path, tmp_path: Path) -> None:
    train = ("train", "vae", "playroom", "--data", clip_folder, "--out", tmp_path / "vae", "--steps", "1")
    assert run(*train) == 0
    assert run("train", "export", "playroom", "--vae-run", tmp_path / "vae", "-o", tmp_path / "vae.safetensors") == 0
    source = ("--vae", tmp_path / "vae.safetensors")
    assert run("data", "precompute", clip_folder, *source, "--out", tmp_path / "latents") == 0
    flow = ("train", "flow", "playroom", "--latents", tmp_path / "latents", *source, "--out", tmp_path / "flow")
    assert run(*flow, "--steps", "1") == 0
    model = tmp_path / "model.safetensors"
    assert run("train", "export", "playroom", *source, "--flow-run", tmp_path / "flow", "-o", model) == 0
    video = openltx.generate(openltx.load(model, device="cpu"), prompt="a red ball", seed=0)
    assert video.frames.shape == (9, 32, 64, 3)
    longer = (*flow[:-1], tmp_path / "longer", "--base", model)
    assert run(*longer, "--steps", "1") == 0


@pytest.mark.usefixtures("tiny_recipe")
def test_a_base_of_another_architecture_is_refused(
    clip_folder: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latents = ("data", "precompute", clip_folder, "--vae", tiny_checkpoint, "--limit", "1")
    assert run(*latents, "--out", tmp_path / "latents") == 0
    deeper = replace(transformer_preset("tiny"), num_layers=5)
    monkeypatch.setattr(playroom, "FLOW_RUN", replace(playroom.FLOW_RUN, transformer=deeper))
    flow = ("train", "flow", "playroom", "--latents", tmp_path / "latents", "--vae", tiny_checkpoint)
    assert run(*flow, "--out", tmp_path / "flow", "--base", tiny_checkpoint, "--steps", "1") == 2
    assert "not of the recipe's architecture" in capfd.readouterr().err


def test_an_unknown_recipe_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("train", "vae", "playrom", "--data", tmp_path, "--out", tmp_path / "run") == 2
    assert 'no recipe "playrom"' in capfd.readouterr().err


def test_an_export_says_where_the_vae_may_come_from(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("train", "export", "playroom", "-o", tmp_path / "model.safetensors") == 2
    assert "--vae-run" in capfd.readouterr().err


@pytest.mark.usefixtures("tiny_recipe")
@pytest.mark.parametrize("recipe", ["film", "decoder"])
def test_a_run_goes_on_from_a_model_on_several_folders(
    recipe: str, clip_folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "again").symlink_to(clip_folder)
    folders = ("--data", clip_folder, tmp_path / "again", "--share", "1", "3")
    train = ("train", "vae", recipe, *folders, "--base", tiny_checkpoint, "--out", tmp_path / "run", "--steps", "1")
    assert run(*train) == 0
    assert run("train", "export", "playroom", "--vae-run", tmp_path / "run", "-o", tmp_path / "vae.safetensors") == 0
    base, trained = load_vae(tiny_checkpoint), load_vae(tmp_path / "vae.safetensors", dtype=torch.float32)
    before, after = base.state_dict(), trained.state_dict()
    same = {
        name: before[name].shape == x.shape and torch.allclose(before[name], x, rtol=0.01) for name, x in after.items()
    }
    if recipe == "decoder":
        assert trained.config.decoder_base_channels == 8
        assert all(same[name] for name in same if not name.startswith("decoder."))
    else:
        assert trained.config == base.config
        assert not same["encoder.conv_in.conv.weight"]


@pytest.mark.usefixtures("tiny_recipe")
def test_a_recipe_that_goes_on_asks_for_its_base(
    clip_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert run("train", "vae", "film", "--data", clip_folder, "--out", tmp_path) == 2
    assert "--base" in capfd.readouterr().err


@pytest.mark.usefixtures("tiny_recipe")
def test_each_folder_has_a_share_or_none_has(
    clip_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "vae", "playroom", "--data", clip_folder, "--share", "1", "2", "--out", tmp_path)
    assert run(*words) == 2
    assert "2 shares for 1 folders" in capfd.readouterr().err


@pytest.mark.usefixtures("tiny_recipe")
def test_a_mixed_run_is_distilled_and_both_become_files(
    clip_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    mixed = replace(playroom_mixed.FLOW_RUN.flow, tokens_per_batch=24)
    recipe = replace(playroom_mixed.FLOW_RUN, flow=mixed, posthoc_every=1, latents=Precompute(stills=2, ending=2))
    recipe = replace(recipe, distill=DistillConfig(steps=2, substeps=2, tokens=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playroom_mixed, "FLOW_RUN", recipe)
        latents, source = tmp_path / "latents", ("--vae", tiny_checkpoint)
        assert run("data", "precompute", clip_folder, *source, "--out", latents, "--recipe", "playroom-mixed") == 0
        train = ("train", "flow", "playroom-mixed", "--latents", latents, *source, "--out", tmp_path / "flow")
        assert run(*train, "--steps", "2", "--recompute") == 0
        model, fast = tmp_path / "model.safetensors", tmp_path / "fast.safetensors"
        export = ("train", "export", "playroom-mixed", *source)
        assert run(*export, "--flow-run", tmp_path / "flow", "--ema-length", "0.1", "-o", model) == 0
        distill = ("train", "distill", "playroom-mixed", "--base", model, "--latents", latents)
        assert run(*distill, "--out", tmp_path / "fast", "--steps", "1") == 0
        assert run(*export, "--flow-run", tmp_path / "fast", "-o", fast) == 0
    video = openltx.generate(openltx.load(fast, device="cpu"), prompt="a red ball", seed=0)
    assert (video.frames.shape, video.request.steps, video.request.cfg) == ((9, 32, 64, 3), 2, 1.0)
