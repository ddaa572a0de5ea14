"""Recipes by name: every released model has one that its settings allow, and a loaded model is sampled by it."""

import json
from dataclasses import replace

import pytest
import torch

from openltx import GenerationRequest, Generator
from openltx.checkpoints.releases import RELEASES
from openltx.errors import CheckpointError, RequestError
from openltx.models.presets import transformer_preset
from openltx.pipelines.generate import curve_of
from openltx.pipelines.request import Sampling
from openltx.pipelines.residency import require_precision
from openltx.recipes.generate import recipe, recipe_of

MODELS = [name for name, release in RELEASES.items() if release.kind == "model"]
DISTILLED_TIMES = (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_settings_that_its_network_can_follow(name):
    ours = recipe(name)
    blocks = transformer_preset("13b" if "13b" in name else "2b").num_layers
    passes = [ours.sampling] if ours.two_pass is None else [ours.two_pass.first, ours.two_pass.second]
    for settings in passes:
        curve = curve_of(Sampling(**settings))
        for guidance in curve.values:
            assert all(0 <= block < blocks for block in guidance.skip_blocks)
            assert guidance.skip_blocks or not guidance.needs_weak
    Sampling(**ours.sampling).shape.require_on_grid()


@pytest.mark.parametrize("name", MODELS)
def test_models_for_two_passes_have_an_upscaler_of_their_generation(name):
    ours = recipe(name)
    if ours.two_pass is None:
        assert ours.upscaler is None
        return
    assert ours.upscaler in RELEASES
    assert RELEASES[ours.upscaler].kind == "upscaler"
    assert ours.upscaler.endswith("0.9.7" if "0.9.7" in name else "0.9.8")
    assert ours.two_pass.first.keys() == ours.two_pass.second.keys()
    assert {key: ours.sampling.get(key, value) for key, value in ours.two_pass.first.items()} == ours.two_pass.first


def test_a_recipe_is_found_by_the_name_of_the_file_too():
    assert recipe_of("/models/ltxv-13b-0.9.8-dev.safetensors") == recipe("ltxv-13b-0.9.8-dev")
    assert recipe_of("mine.safetensors") is None
    assert recipe_of("ltxv-spatial-upscaler-0.9.8") is None
    with pytest.raises(CheckpointError, match="release of another kind"):
        recipe("ltxv-spatial-upscaler-0.9.8")


def test_a_model_is_sampled_by_its_recipe(tiny_model):
    generator = Generator(recipe("ltxv-2b-0.9.6-distilled").apply(tiny_model))
    request = generator.resolve(GenerationRequest("a ball"))
    assert (request.steps, request.cfg, request.stochastic, request.size) == (8, 1.0, True, "1216x704")
    assert request.negative == "worst quality, inconsistent motion, blurry, jittery, distorted"
    assert generator.resolve(GenerationRequest("a ball", negative="")).negative == ""


def test_asking_for_steps_puts_the_models_own_times_aside(tiny_model):
    generator = Generator(recipe("ltxv-2b-0.9.8-distilled").apply(tiny_model))
    assert len(generator.resolve(GenerationRequest("a ball")).times or ()) == 7
    asked = generator.resolve(GenerationRequest("a ball", steps=3))
    assert (asked.steps, asked.times) == (3, None)


@pytest.fixture
def distilled(tiny_model):
    return Generator(replace(tiny_model, allowed_times=DISTILLED_TIMES))


@pytest.mark.parametrize("wish", [{"times": (1.0, 0.725)}, {"steps": 8}, {"times": (1.0, 0.99374, 0.42186)}])
def test_a_distilled_model_is_called_at_its_own_times(distilled, wish):
    assert distilled.resolve(GenerationRequest("a ball", cfg=1.0, **wish)).steps


@pytest.mark.parametrize("wish", [{"times": (1.0, 0.7)}, {"steps": 20}, {"times": (1.0, 0.9936)}])
def test_a_distilled_model_is_not_called_at_other_times(distilled, wish):
    with pytest.raises(RequestError, match=r"distilled for the times 1, 0\.9937.*called at.*--times"):
        distilled.resolve(GenerationRequest("a ball", **wish))


def test_allowed_times_are_read_from_the_file(tiny_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    import openltx
    from openltx.checkpoints.header import read_header

    metadata = dict(read_header(tiny_checkpoint).metadata)
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | {"allowed_inference_steps": [1.0, 0.5]})
    save_file(load_file(tiny_checkpoint), tmp_path / "distilled.safetensors", metadata=metadata)
    model = openltx.load(tmp_path / "distilled.safetensors", device="cpu", precision="float32")
    assert model.allowed_times == (1.0, 0.5)
    with pytest.raises(RequestError, match=r"called at 0\.25"):
        openltx.generate(model, "a ball", times=(1.0, 0.25))
    video = openltx.generate(model, "a ball", times=(1.0, 0.5), last_step="renoise", seed=1)
    assert video.frames.shape == (9, 32, 64, 3)
    assert torch.isfinite(torch.from_numpy(video.frames).float()).all()


def test_float16_is_refused_with_the_reason() -> None:
    with pytest.raises(RequestError, match=r'precision="float16".*overflows.*bfloat16'):
        require_precision("float16")
