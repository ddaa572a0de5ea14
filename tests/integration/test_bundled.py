"""The model that comes with the package: it is complete, small, and makes what it is asked for."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

import openltx
from openltx.checkpoints import inspect_file
from openltx.models.bundle import LTXModel
from openltx.recipes import playroom

BUNDLED = files("openltx") / "bundled"


@pytest.fixture(scope="module")
def model() -> LTXModel:
    return openltx.load("playroom", device="cpu")


def test_it_has_the_recipe_s_architecture_and_says_how_to_sample_it(model: LTXModel) -> None:
    assert model.transformer.config == playroom.TRANSFORMER
    assert model.vae.config == playroom.VAE
    assert model.sampling == playroom.SAMPLING
    assert model.text is not None
    assert model.text.channels == model.transformer.config.caption_channels


def test_all_bundled_weights_together_take_at_most_90_megabytes() -> None:
    weights = Path(str(BUNDLED)).rglob("*.safetensors")
    total = sum(path.stat().st_size for path in weights)
    assert total <= 90e6


def test_its_file_has_the_official_layout() -> None:
    report = inspect_file(str(BUNDLED / "playroom" / "playroom.safetensors"))
    assert {name.split(".")[0] for name in (tensor.name for tensor in report.tensors)} == {"model", "vae"}
    assert set(report.config) == {"transformer", "vae", "scheduler"}
    assert json.loads(report.metadata["openltx.sampling"]) == playroom.SAMPLING
    assert report.metadata["openltx.world"] == "playroom"


def test_it_makes_a_video_of_the_asked_size(model: LTXModel) -> None:
    video = openltx.generate(model, prompt="a large red ball", frames=9, size="64x96", steps=2, seed=3)
    assert video.frames.shape == (9, 96, 64, 3)


def test_the_colour_of_the_prompt_decides_the_colour_of_the_video(model: LTXModel) -> None:
    """Same seed, two colours: the red prompt's video is the redder one."""
    redness = {}
    for colour in ("red", "blue"):
        prompt = f"a large {colour} ball stays still on a grey concrete floor"
        frames = openltx.generate(model, prompt=prompt, frames=25, steps=10, seed=3).frames.astype(float)
        redness[colour] = (frames[..., 0] - frames[..., 2])[:, 32:96, 32:96].mean()
    assert redness["red"] > redness["blue"] + 20
