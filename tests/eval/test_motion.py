"""Flicker and the error where things move: their laws."""

import pytest
import torch

from openltx.eval.motion import SMALLEST_SHARE, flicker, motion_psnr, moving_region


def moving_square(frames: int = 9, size: int = 32) -> torch.Tensor:
    """A bright square of 8 x 8 that goes right by 2 pixels a frame over a dark ground."""
    video = torch.full((3, frames, size, size), -0.5)
    for f in range(frames):
        video[:, f, 8:16, 2 * f : 2 * f + 8] = 0.5
    return video


def alternating(video: torch.Tensor, levels: float) -> torch.Tensor:
    """Every second frame brighter by so many of 255 levels."""
    signs = torch.arange(video.shape[1]) % 2
    return video + signs[:, None, None] * levels / 127.5


def test_equal_videos_do_not_flicker_and_neither_does_a_constant_error() -> None:
    video = moving_square()
    assert flicker(video, video) == 0
    assert flicker(video + 0.1, video) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("levels", [1.0, 5.0, 20.0])
def test_alternating_brightness_flickers_by_its_amplitude_in_levels(levels: float) -> None:
    video = moving_square()
    assert flicker(alternating(video, levels), video) == pytest.approx(levels, rel=1e-4)


def test_a_still_copy_of_a_moving_clip_is_charged_with_the_motion_that_it_lacks() -> None:
    video = moving_square()
    still = video[:, :1].expand_as(video)
    assert flicker(still, video) == pytest.approx(127.5 * video.diff(dim=1).abs().mean().item())
    assert flicker(still, still) == 0


def test_a_single_frame_has_no_flicker_and_no_motion() -> None:
    picture = moving_square()[:, :1]
    assert flicker(picture, picture) is None
    assert motion_psnr(picture, picture) is None


def test_the_moving_region_is_where_the_square_is_and_not_where_it_never_was() -> None:
    region = moving_region(moving_square())
    assert region[0, 8:16, 0:2].all()
    assert region[-1, 8:16, 18:24].all()
    assert not region[:, 20:].any()
    assert not region[:, :, 24:].any()


def test_a_change_below_the_threshold_is_no_motion() -> None:
    video = torch.zeros(3, 9, 16, 16)
    assert not moving_region(alternating(video, 15)).any()
    assert moving_region(alternating(video, 17))[1].all()


def test_errors_outside_the_region_do_not_count_and_errors_inside_do() -> None:
    video = moving_square()
    region = moving_region(video)
    outside, inside = video.clone(), video.clone()
    outside[:, ~region] += 0.5
    inside[:, region] += 0.2
    assert motion_psnr(outside, video) == pytest.approx(106, abs=1)
    assert motion_psnr(inside, video) == pytest.approx(20, abs=1e-3)


def test_where_nothing_moves_there_is_no_number() -> None:
    still = moving_square()[:, :1].repeat(1, 9, 1, 1)
    assert motion_psnr(still, still) is None
    speck = still.clone()
    speck[:, 4, 0, 0] = 1
    assert 1 / speck[0].numel() < SMALLEST_SHARE
    assert motion_psnr(still, speck) is None
