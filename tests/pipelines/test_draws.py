"""What a seed covers: everything that is drawn, in one of two orders. ``tests/parity`` has the official pipeline."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openltx import GenerationRequest, Generator, LTXModel, RequestError
from openltx.cli import main
from openltx.geometry import LatentShape, patchify
from openltx.media.io import read_metadata
from openltx.pipelines.draws import as_tokens, seeded_draws
from openltx.pipelines.generate import Prepared

GRID = LatentShape(frames=3, height=2, width=4)
LAYOUTS = ("openltx", "official")


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 64, 3)).astype(np.uint8)).save(path)
    return path


def prepared(model: LTXModel, **wishes: object) -> Prepared:
    return Generator(model).prepare(replace(GenerationRequest("a ball", seed=3), **wishes))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_videos_noise_is_the_first_thing_that_a_seed_gives(layout: str) -> None:
    draws = seeded_draws(layout, 3, GRID)  # type: ignore[arg-type]
    assert draws.start(5).equal(torch.randn(1, GRID.num_tokens, 5, generator=seeded()))


def test_extra_tokens_are_drawn_as_tokens_or_as_latents() -> None:
    shape = (1, 2 * 8, 5)  # two latent frames
    assert seeded_draws("openltx", 3, GRID).extra(shape).equal(torch.randn(shape, generator=seeded()))
    latents = torch.randn(1, 5, 2, 2, 4, generator=seeded())
    assert seeded_draws("official", 3, GRID).extra(shape).equal(patchify(latents))


def test_the_official_order_draws_from_two_generators_of_the_same_seed() -> None:
    draws = seeded_draws("official", 3, GRID)
    like = torch.zeros(1, 24, 5)
    renew, pictures = draws.of_steps()
    expected = torch.randn(1, 24, 5, generator=seeded())
    assert renew(like).equal(expected)
    assert pictures(like).equal(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_the_steps_draw_is_the_same_every_time_they_are_taken(layout: str) -> None:
    draws, like = seeded_draws(layout, 3, GRID), torch.zeros(1, 24, 5)  # type: ignore[arg-type]
    for one, again in zip(draws.of_steps(), draws.of_steps(), strict=True):
        assert one(like).equal(again(like))


def test_the_official_decoder_draws_after_the_steps() -> None:
    draws = seeded_draws("official", 3, GRID)
    generator = seeded()
    for _ in range(2):
        torch.randn(1, 24, 5, generator=generator)
    assert draws.of_decoder((1, 24, 5), 2).get_state().equal(generator.get_state())
    assert draws.of_decoder((1, 24, 5), 0).get_state().equal(seeded().get_state())


def test_given_noise_is_tokens_or_latents_of_the_video() -> None:
    latents = torch.randn(1, 5, 3, 2, 4)
    assert as_tokens(latents, GRID, 5).equal(patchify(latents))
    assert as_tokens(patchify(latents), GRID, 5).equal(patchify(latents))
    for wrong in (latents[:, :, 1:], patchify(latents)[:, 1:]):
        with pytest.raises(RequestError, match="this video needs"):
            as_tokens(wrong, GRID, 5)


def test_a_generation_begins_with_the_noise_that_is_given(tiny_model: LTXModel) -> None:
    noise = torch.randn(1, 16, 2, 1, 2)
    ready = Generator(tiny_model).prepare(GenerationRequest("a ball", seed=3), noise=noise)
    assert ready.state.tokens.equal(patchify(noise))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_preview_does_not_change_a_stochastic_video(tiny_model: LTXModel, picture: Path, layout: str) -> None:
    generator = Generator(tiny_model)
    wishes = {"image": picture, "image_noise": 0.2, "stochastic": True, "last_step": "renoise", "noise_layout": layout}
    ready = prepared(tiny_model, **wishes)
    previews = [generator.decode(ready, step.state) for step in generator.sample(ready)]
    assert np.array_equal(previews[-1], generator(ready.request).frames)
    assert np.array_equal(previews[-1], generator.decode(ready, list(generator.sample(ready))[-1].state))


def test_only_the_official_order_samples_the_posterior_of_a_given_picture(tiny_model: LTXModel, picture: Path) -> None:
    mean, again = (prepared(tiny_model, image=picture, seed=seed).state.clean for seed in (3, 4))
    assert mean.equal(again)
    one, same, other = (
        prepared(tiny_model, image=picture, seed=seed, noise_layout="official").state.clean for seed in (3, 3, 4)
    )
    assert one.equal(same)
    assert not one.equal(other)
    assert not one.equal(mean)


def test_the_command_knows_the_layout_and_the_file_says_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    words = ["generate", "a ball", "--model", str(tiny_checkpoint), "--noise-layout", "official", "--seed", "1"]
    assert main([*words, "--last-step", "renoise", "-o", str(path)]) == 0
    assert GenerationRequest.from_json(read_metadata(path)["request"]).noise_layout == "official"
