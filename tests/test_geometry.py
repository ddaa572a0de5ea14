import pytest
import torch

from openltx.errors import RequestError
from openltx.geometry import Compression, LatentShape, VideoShape, patchify, token_positions, unpatchify


@pytest.mark.parametrize(
    ("frames", "height", "width", "tokens"),
    [(121, 512, 768, 6144), (121, 704, 1216, 13376), (1, 32, 32, 1), (49, 128, 128, 112)],
)
def test_token_counts_are_those_of_the_paper(frames: int, height: int, width: int, tokens: int) -> None:
    assert VideoShape(frames=frames, height=height, width=width, fps=24.0).latent().num_tokens == tokens


def test_latent_and_video_shapes_are_inverse() -> None:
    shape = VideoShape(frames=25, height=128, width=96, fps=24.0)
    assert shape.latent() == LatentShape(frames=4, height=4, width=3)
    assert shape.latent().video(24.0) == shape
    small = Compression(time=4, space=16)
    assert shape.latent(small).video(24.0, small) == shape


@pytest.mark.parametrize(
    ("frames", "height", "width", "hints"),
    [
        (24, 128, 128, ["frames=24 (nearest: 17 or 25)"]),
        (0, 128, 128, ["frames=0 (nearest: 1)"]),
        (25, 100, 128, ["height=100 (nearest: 96 or 128)"]),
        (25, 128, 5, ["width=5 (nearest: 32"]),
        (26, 100, 70, ["frames=26", "height=100", "width=70 (nearest: 64 or 96)"]),
    ],
)
def test_a_size_off_the_grid_is_refused_with_its_neighbours(
    frames: int, height: int, width: int, hints: list[str]
) -> None:
    shape = VideoShape(frames=frames, height=height, width=width, fps=24.0)
    assert not shape.is_on_grid()
    with pytest.raises(RequestError) as caught:
        shape.latent()
    for hint in hints:
        assert hint in str(caught.value)


@pytest.mark.parametrize("frames", [1, 2, 9, 24, 25])
@pytest.mark.parametrize("side", [1, 32, 33, 100])
def test_padding_gives_the_smallest_size_on_the_grid_that_holds_it(frames: int, side: int) -> None:
    shape = VideoShape(frames=frames, height=side, width=side, fps=24.0)
    padded = shape.padded()
    assert padded.is_on_grid()
    assert 0 <= padded.frames - frames < 8
    assert 0 <= padded.height - side < 32
    assert padded.padded() == padded


def test_positions_are_the_corners_of_the_cells_in_seconds_and_pixels() -> None:
    positions = token_positions(LatentShape(frames=3, height=2, width=2), 25.0, causal=False)
    seconds, y, x = positions
    torch.testing.assert_close(seconds, torch.tensor([0.0, 8 / 25, 16 / 25]).repeat_interleave(4))
    assert y.tolist() == [0, 0, 32, 32] * 3
    assert x.tolist() == [0, 32] * 6


def test_causal_positions_give_the_first_latent_frame_one_pixel_frame() -> None:
    seconds = token_positions(LatentShape(frames=4, height=1, width=1), 10.0, causal=True)[0]
    torch.testing.assert_close(seconds * 10, torch.tensor([0.0, 1.0, 9.0, 17.0]))


def test_a_clip_inside_a_video_begins_at_its_frame_in_whole_frames() -> None:
    seconds = token_positions(LatentShape(frames=3, height=1, width=1), 25.0, first_frame=16)[0]
    assert seconds.equal(torch.tensor([16.0, 17.0, 25.0]) * (1 / 25.0))


def test_the_same_moment_has_the_same_position_at_every_frame_rate() -> None:
    slow = token_positions(LatentShape(frames=3, height=1, width=1), 12.0, causal=False)
    fast = token_positions(LatentShape(frames=5, height=1, width=1), 24.0, causal=False)
    torch.testing.assert_close(slow, fast[:, ::2])


def test_patchify_and_unpatchify_are_inverse_and_agree_with_the_positions() -> None:
    shape = LatentShape(frames=3, height=4, width=5)
    positions = token_positions(shape, 24.0)
    grid = unpatchify(positions.T[None], shape)
    assert grid[0, 1, 1, 2].tolist() == [64.0] * 5
    assert grid[0, 2, 1, 2].tolist() == [0.0, 32.0, 64.0, 96.0, 128.0]
    torch.testing.assert_close(patchify(grid)[0].T, positions, rtol=0, atol=0)
