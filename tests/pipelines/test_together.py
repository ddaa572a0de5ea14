"""Several videos in one batch are what they are one by one, whatever is drawn and given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from openltx import GenerationRequest, Generator, LTXModel
from openltx.pipelines.prepared import Prepared, sample_together

PROMPTS = ("a ball", "a large red ball that rolls to the left", "two cubes")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 64, 3)).astype(np.uint8)).save(path)
    return path


def prepared(model: LTXModel, **wishes: Any) -> list[Prepared]:
    own = [{"prompt": prompt, "negative": f"not {prompt}", "seed": seed} for seed, prompt in enumerate(PROMPTS)]
    return [Generator(model).prepare(GenerationRequest(**{"frames": 9, "steps": 3, **one, **wishes})) for one in own]


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"cfg": 3.0, "rescale": 0.5},
        {"cfg": 3.0, "stg": 1.0, "skip_blocks": (0,), "cfg_star": True},
        {"noise_layout": "official", "stochastic": True},
        {"image": "picture", "image_strength": 0.7, "cfg": 2.0},
        {"image": "picture", "image_noise": 0.2},
    ],
    ids=["plain", "guided", "stg", "stochastic", "picture", "noise on a picture"],
)
def test_each_step_is_what_it_is_alone(tiny_model: LTXModel, picture: Path, wishes: dict[str, Any]) -> None:
    if "image" in wishes:
        wishes = {**wishes, "image": picture}
    videos = prepared(tiny_model, **wishes)
    assert all(video.goes_with(videos[0]) for video in videos)
    together = list(zip(*sample_together(tiny_model.transformer, videos), strict=True))
    for video, steps in zip(videos, together, strict=True):
        alone = list(Generator(tiny_model).sample(video))
        assert [(step.index, step.total, step.t) for step in steps] == [(s.index, s.total, s.t) for s in alone]
        for one, other in zip(steps, alone, strict=True):
            torch.testing.assert_close(one.state.tokens, other.state.tokens, rtol=0, atol=1e-4)
            torch.testing.assert_close(one.clean, other.clean, rtol=0, atol=1e-4)
            assert torch.equal(one.state.strength, other.state.strength)


def test_what_differs_in_more_than_words_does_not_go_together(tiny_model: LTXModel, picture: Path) -> None:
    first = prepared(tiny_model)[0]
    for other in (
        {"steps": 4},
        {"frames": 17},
        {"size": "96x32"},
        {"cfg": 3.0},
        {"fps": 12.0},
        {"cache_threshold": 0.1},
    ):
        assert not prepared(tiny_model, **other)[0].goes_with(first)
    cached = prepared(tiny_model, cache_threshold=0.1)
    assert not cached[0].goes_with(cached[1])
    between = prepared(tiny_model, keyframes=(f"{picture}@3",))
    assert not between[0].goes_with(first)
