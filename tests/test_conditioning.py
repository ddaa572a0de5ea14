import pytest
import torch

from openltx.conditioning import FirstImage, initial_state, training_state
from openltx.errors import RequestError
from openltx.geometry import LatentShape, patchify, token_positions

SHAPE = LatentShape(frames=3, height=2, width=4)
FIRST = 8  # tokens of the first frame


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_without_items_the_state_is_the_noise() -> None:
    noise = randn(2, SHAPE.num_tokens, 5)
    state = initial_state(noise, SHAPE, 24.0, [])
    assert state.tokens.equal(noise)
    assert state.targets.equal(noise)
    assert not state.strength.any()
    assert state.positions[1].equal(token_positions(SHAPE, 24.0))


def test_a_first_image_of_full_strength_stands_clean_at_time_zero() -> None:
    noise, image = randn(2, SHAPE.num_tokens, 5), randn(2, 5, 1, 2, 4, seed=1)
    state = initial_state(noise, SHAPE, 24.0, [FirstImage(latents=image)])
    assert state.tokens[:, :FIRST].equal(patchify(image))
    assert state.tokens[:, FIRST:].equal(noise[:, FIRST:])
    assert not state.clean[:, FIRST:].any()
    assert state.effective_t(1.0).tolist() == [[0.0] * FIRST + [1.0] * 16] * 2


def test_a_weaker_first_image_is_mixed_with_the_noise_and_serves_the_whole_batch() -> None:
    noise, image = randn(2, SHAPE.num_tokens, 5), randn(1, 5, 1, 2, 4, seed=1)
    state = initial_state(noise, SHAPE, 24.0, [FirstImage(latents=image, strength=0.7)])
    expected = torch.lerp(noise[:, :FIRST], patchify(image), 0.7)
    torch.testing.assert_close(state.tokens[:, :FIRST], expected)
    torch.testing.assert_close(state.effective_t(1.0)[:, :FIRST], torch.full((2, FIRST), 0.3))


@pytest.mark.parametrize("shape", [(1, 5, 1, 4, 2), (1, 4, 1, 2, 4), (3, 5, 1, 2, 4)])
def test_an_image_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="Resize the image"):
        initial_state(randn(2, SHAPE.num_tokens, 5), SHAPE, 24.0, [FirstImage(latents=randn(*shape))])


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_outside_0_to_1_is_refused(strength: float) -> None:
    item = FirstImage(latents=randn(1, 5, 1, 2, 4), strength=strength)
    with pytest.raises(RequestError, match="from 0 to 1"):
        initial_state(randn(2, SHAPE.num_tokens, 5), SHAPE, 24.0, [item])


def test_training_at_t_1_meets_the_state_that_sampling_starts_from() -> None:
    clean, noise = randn(2, SHAPE.num_tokens, 5), randn(2, SHAPE.num_tokens, 5, seed=1)
    trained, times, counts = training_state(
        clean, noise, torch.ones(2), SHAPE, 24.0, torch.tensor([0.9, 0.9]), causal=False
    )
    image = clean[:, :FIRST].reshape(2, 1, 2, 4, 5).permute(0, 4, 1, 2, 3)
    sampled = initial_state(noise, SHAPE, 24.0, [FirstImage(latents=image, strength=0.9)], causal=False)
    torch.testing.assert_close(trained.tokens, sampled.tokens)
    torch.testing.assert_close(times, sampled.effective_t(1.0))
    assert trained.positions.equal(sampled.positions)
    assert counts.tolist() == [[False] * FIRST + [True] * 16] * 2


def test_training_noises_each_token_to_its_own_time() -> None:
    clean, noise = randn(3, SHAPE.num_tokens, 5), randn(3, SHAPE.num_tokens, 5, seed=1)
    t, strength = torch.tensor([0.8, 0.6, 0.05]), torch.tensor([0.0, 1.0, 0.9])
    state, times, counts = training_state(clean, noise, t, SHAPE, 24.0, strength)
    torch.testing.assert_close(times[:, 0], torch.tensor([0.8, 0.0, 0.05]))
    torch.testing.assert_close(times[:, -1], t)
    torch.testing.assert_close(state.tokens, (1 - times[..., None]) * clean + times[..., None] * noise)
    assert counts.sum(1).tolist() == [24, 16, 16]


def test_an_image_in_training_is_not_given_to_itself() -> None:
    shape = LatentShape(frames=1, height=2, width=4)
    clean, noise = randn(2, 8, 5), randn(2, 8, 5, seed=1)
    _, times, counts = training_state(clean, noise, torch.tensor([0.8, 0.6]), shape, 24.0, torch.ones(2))
    assert counts.all()
    torch.testing.assert_close(times, torch.tensor([[0.8], [0.6]]).expand(-1, 8))
