import pytest
import torch

from openltx.conditioning import Given, Kept, Reference, initial_state, training_state
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
    state = initial_state(noise, SHAPE, 24.0, [Given(latents=image)])
    assert state.tokens[:, :FIRST].equal(patchify(image))
    assert state.tokens[:, FIRST:].equal(noise[:, FIRST:])
    assert not state.clean[:, FIRST:].any()
    assert state.effective_t(1.0).tolist() == [[0.0] * FIRST + [1.0] * 16] * 2


def test_a_weaker_first_image_is_mixed_with_the_noise_and_serves_the_whole_batch() -> None:
    noise, image = randn(2, SHAPE.num_tokens, 5), randn(1, 5, 1, 2, 4, seed=1)
    state = initial_state(noise, SHAPE, 24.0, [Given(latents=image, strength=0.7)])
    expected = torch.lerp(noise[:, :FIRST], patchify(image), 0.7)
    torch.testing.assert_close(state.tokens[:, :FIRST], expected)
    torch.testing.assert_close(state.effective_t(1.0)[:, :FIRST], torch.full((2, FIRST), 0.3))


@pytest.mark.parametrize("shape", [(1, 5, 1, 4, 2), (1, 4, 1, 2, 4), (3, 5, 1, 2, 4)])
def test_an_image_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="Resize the image"):
        initial_state(randn(2, SHAPE.num_tokens, 5), SHAPE, 24.0, [Given(latents=randn(*shape))])


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_outside_0_to_1_is_refused(strength: float) -> None:
    item = Given(latents=randn(1, 5, 1, 2, 4), strength=strength)
    with pytest.raises(RequestError, match="from 0 to 1"):
        initial_state(randn(2, SHAPE.num_tokens, 5), SHAPE, 24.0, [item])


def test_training_at_t_1_meets_the_state_that_sampling_starts_from() -> None:
    clean, noise = randn(2, SHAPE.num_tokens, 5), randn(2, SHAPE.num_tokens, 5, seed=1)
    items = [Given(latents=first_frame(clean), strength=0.9)]
    trained, times, counts = training_state(clean, noise, torch.ones(2), SHAPE, 24.0, items, causal=False)
    sampled = initial_state(noise, SHAPE, 24.0, items, causal=False)
    torch.testing.assert_close(trained.tokens, sampled.tokens)
    torch.testing.assert_close(times, sampled.effective_t(1.0))
    assert trained.positions.equal(sampled.positions)
    assert counts.tolist() == [[False] * FIRST + [True] * 16] * 2


def first_frame(clean: torch.Tensor) -> torch.Tensor:
    """The first frame of videos of SHAPE, as latents."""
    return clean[:, :FIRST].reshape(-1, 1, 2, 4, 5).permute(0, 4, 1, 2, 3)


def test_training_noises_each_token_to_its_own_time() -> None:
    clean, noise = randn(3, SHAPE.num_tokens, 5), randn(3, SHAPE.num_tokens, 5, seed=1)
    t, strength = torch.tensor([0.8, 0.6, 0.05]), torch.tensor([0.0, 1.0, 0.9])
    items = [Given(latents=first_frame(clean), strength=strength)]
    state, times, counts = training_state(clean, noise, t, SHAPE, 24.0, items)
    torch.testing.assert_close(times[:, 0], torch.tensor([0.8, 0.0, 0.05]))
    torch.testing.assert_close(times[:, -1], t)
    torch.testing.assert_close(state.tokens, (1 - times[..., None]) * clean + times[..., None] * noise)
    assert counts.sum(1).tolist() == [24, 16, 16]


def test_training_with_tokens_in_front_meets_the_state_of_sampling_too() -> None:
    clean, noise = randn(2, SHAPE.num_tokens, 5), randn(2, SHAPE.num_tokens, 5, seed=1)
    items = [Given(latents=randn(2, 5, 1, 2, 4, seed=2), frame=12, strength=torch.tensor([1.0, 0.8]))]

    def draw(size: torch.Size) -> torch.Tensor:
        return randn(*size, seed=3)

    trained, times, counts = training_state(clean, noise, torch.ones(2), SHAPE, 24.0, items, draw=draw)
    sampled = initial_state(noise, SHAPE, 24.0, items, draw=draw)
    torch.testing.assert_close(trained.tokens, sampled.tokens)
    torch.testing.assert_close(times, sampled.effective_t(1.0))
    assert trained.positions.equal(sampled.positions)
    assert counts.tolist() == [[False] * FIRST + [True] * SHAPE.num_tokens] * 2
    later, times, _ = training_state(clean, noise, torch.full((2,), 0.1), SHAPE, 24.0, items, draw=draw)
    assert times[1].tolist() == pytest.approx([0.1] * (FIRST + SHAPE.num_tokens))
    torch.testing.assert_close(later.tokens[:, FIRST:], torch.lerp(clean, noise, 0.1))


def test_a_strength_of_0_leaves_a_sample_to_the_items_before_it() -> None:
    noise, image, clip = randn(2, SHAPE.num_tokens, 5), randn(2, 5, 1, 2, 4, seed=1), randn(2, 5, 2, 2, 4, seed=2)
    items = [
        Given(latents=clip, strength=torch.tensor([1.0, 0.0])),
        Given(latents=image, strength=torch.tensor([0.0, 1.0])),
    ]
    state = initial_state(noise, SHAPE, 24.0, items)
    assert state.strength.sum(1).tolist() == [2 * FIRST, FIRST]
    assert state.tokens[0, : 2 * FIRST].equal(patchify(clip)[0])
    assert state.tokens[1, :FIRST].equal(patchify(image)[1])
    assert state.tokens[1, FIRST:].equal(noise[1, FIRST:])


LONG = LatentShape(frames=5, height=2, width=4)  # 33 frames


def long_noise() -> torch.Tensor:
    return randn(1, LONG.num_tokens, 5)


def test_an_image_inside_the_video_is_extra_tokens_at_its_own_time() -> None:
    noise, image = long_noise(), randn(1, 5, 1, 2, 4, seed=1)
    state = initial_state(noise, LONG, 24.0, [Given(latents=image, frame=20)])
    assert state.tokens.shape[1] == LONG.num_tokens + FIRST
    assert state.tokens[:, :FIRST].equal(patchify(image))
    assert state.targets.equal(noise)
    assert state.strength[0].tolist() == [1.0] * FIRST + [0.0] * LONG.num_tokens
    assert state.positions[0, 0, :FIRST].tolist() == pytest.approx([20 / 24] * FIRST)
    assert state.positions[0, 1:, :FIRST].equal(token_positions(LONG, 24.0)[1:, :FIRST])


def test_a_weak_image_inside_the_video_is_mixed_with_fresh_noise() -> None:
    image, fresh = randn(1, 5, 1, 2, 4, seed=1), randn(1, FIRST, 5, seed=2)
    item = Given(latents=image, frame=8, strength=0.25)
    state = initial_state(long_noise(), LONG, 24.0, [item], draw=lambda shape: fresh.reshape(shape))
    torch.testing.assert_close(state.tokens[:, :FIRST], torch.lerp(fresh, patchify(image), 0.25))


def test_a_clip_at_the_start_stands_in_place() -> None:
    noise, clip = long_noise(), randn(1, 5, 3, 2, 4, seed=1)
    state = initial_state(noise, LONG, 24.0, [Given(latents=clip)])
    assert state.tokens.shape == noise.shape
    assert state.tokens[:, : 3 * FIRST].equal(patchify(clip))
    assert state.tokens[:, 3 * FIRST :].equal(noise[:, 3 * FIRST :])


@pytest.mark.parametrize(("prefix", "extra"), [("tokens", 2 * FIRST), ("soft", 0), ("drop", 0)])
def test_a_clip_inside_stands_in_place_from_its_third_latent_on(prefix: str, extra: int) -> None:
    noise, clip = long_noise(), randn(1, 5, 4, 2, 4, seed=1)  # 25 frames
    state = initial_state(noise, LONG, 24.0, [Given(latents=clip, frame=8, prefix=prefix)])  # type: ignore[arg-type]
    assert state.tokens.shape[1] == LONG.num_tokens + extra
    tokens, strength = state.targets, state.strength[:, extra:]
    rest = slice(3 * FIRST, 5 * FIRST)  # latent frames 8 / 8 + 2 and on
    assert tokens[:, rest].equal(patchify(clip[:, :, 2:]))
    assert strength[:, rest].eq(1).all()
    second = slice(2 * FIRST, 3 * FIRST)
    if prefix == "soft":
        assert strength[:, second].eq(0.15).all()
        torch.testing.assert_close(tokens[:, second], torch.lerp(noise[:, second], patchify(clip[:, :, 1:2]), 0.15))
    else:
        assert tokens[:, second].equal(noise[:, second])
    assert tokens[:, : 2 * FIRST].equal(noise[:, : 2 * FIRST])
    if extra:
        assert state.tokens[:, :extra].equal(patchify(clip[:, :, :2]))
        assert state.positions[0, 0, [0, FIRST]].tolist() == pytest.approx([8 / 24, 9 / 24])


def test_a_reference_is_clean_tokens_at_the_positions_of_the_video_itself() -> None:
    noise, reference = long_noise(), randn(1, 5, 5, 2, 4, seed=1)
    state = initial_state(noise, LONG, 24.0, [Reference(latents=reference)])
    n = LONG.num_tokens
    assert state.positions[:, :, :n].equal(state.positions[:, :, n:])
    assert state.tokens[:, :n].equal(patchify(reference))
    assert state.targets.equal(noise)


def test_a_reference_longer_than_the_video_is_refused() -> None:
    with pytest.raises(RequestError, match=r"33 frames is longer than the video of 17"):
        initial_state(randn(1, SHAPE.num_tokens, 5), SHAPE, 24.0, [Reference(latents=randn(1, 5, 5, 2, 4))])


def test_an_edit_in_place_keeps_each_cell_by_its_own_strength() -> None:
    noise, video = long_noise(), randn(1, 5, 5, 2, 4, seed=1)
    strength = torch.zeros(1, 5, 2, 4)
    strength[:, 1, 0, 2], strength[:, 4] = 1.0, 0.5
    state = initial_state(noise, LONG, 24.0, [Kept(latents=video, strength=strength)])
    assert state.strength.equal(strength.flatten(1))
    expected = torch.lerp(noise, patchify(video), strength.flatten(1)[..., None])
    torch.testing.assert_close(state.tokens, expected)


def test_extra_tokens_stand_in_the_order_of_their_items() -> None:
    one, two = randn(1, 5, 1, 2, 4, seed=1), randn(1, 5, 1, 2, 4, seed=2)
    state = initial_state(long_noise(), LONG, 24.0, [Given(latents=one, frame=9), Given(latents=two, frame=4)])
    assert state.tokens[:, : 2 * FIRST].equal(torch.cat([patchify(one), patchify(two)], 1))
    assert state.positions[0, 0, [0, FIRST]].tolist() == pytest.approx([9 / 24, 4 / 24])


def test_several_conditions_go_together() -> None:
    first, last = randn(1, 5, 1, 2, 4, seed=1), randn(1, 5, 1, 2, 4, seed=2)
    state = initial_state(long_noise(), LONG, 24.0, [Given(latents=first), Given(latents=last, frame=32)])
    assert state.tokens.shape[1] == LONG.num_tokens + FIRST
    assert state.targets[:, :FIRST].equal(patchify(first))
    assert state.tokens[:, :FIRST].equal(patchify(last))


@pytest.mark.parametrize(
    ("frame", "frames", "message"),
    [(33, 1, "may start at 0 to 32"), (-1, 1, "may start at"), (16, 4, "0 to 8"), (0, 6, "longer"), (4, 2, "0 and 8")],
)
def test_a_condition_outside_the_video_or_off_the_grid_is_refused(frame: int, frames: int, message: str) -> None:
    item = Given(latents=randn(1, 5, frames, 2, 4), frame=frame)
    with pytest.raises(RequestError, match=message):
        initial_state(long_noise(), LONG, 24.0, [item])
