"""The model that comes with the package: it is complete, small, and makes what it is asked for."""

import json
from importlib.resources import files

import numpy as np
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
    total = sum(path.stat().st_size for folder in BUNDLED.iterdir() for path in folder.iterdir())  # type: ignore[attr-defined]
    assert total <= 90e6


def test_its_file_has_the_official_layout() -> None:
    report = inspect_file(str(BUNDLED / "playroom" / "playroom.safetensors"))
    assert {name.split(".")[0] for name in (tensor.name for tensor in report.tensors)} == {"model", "vae"}
    assert set(report.config) == {"transformer", "vae", "scheduler"}
    assert json.loads(report.metadata["openltx.sampling"]) == playroom.SAMPLING
    assert report.metadata["openltx.world"] == "playroom"


def test_the_colour_of_the_prompt_decides_the_colour_of_the_video(model: LTXModel) -> None:
    """Same seed, two colours: the redder video is that of the red prompt."""
    redness = {}
    for colour in ("red", "blue"):
        prompt = f"a large {colour} ball sits still on a grey concrete floor"
        frames = openltx.generate(model, prompt=prompt, frames=25, steps=10, seed=3).frames.astype(float)
        redness[colour] = np.abs(frames[..., 0] - frames[..., 2]).mean() * np.sign(
            (frames[..., 0] - frames[..., 2]).mean()
        )
    assert redness["red"] > redness["blue"] + 1
