"""PSNR, SSIM and LPIPS of videos: their known values and laws."""

import math

import pytest
import torch

from openltx.eval.comparison import compare
from openltx.eval.metrics import frame_psnr, frame_ssim, psnr


def video(frames: int = 3, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, frames, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_of_a_constant_error_is_its_textbook_value() -> None:
    a = torch.zeros(3, 2, 16, 16)
    assert psnr(a + 2 * 0.1, a) == pytest.approx(20.0, abs=1e-4)
    assert psnr(a + 2 / 255, a) == pytest.approx(20 * math.log10(255), abs=1e-3)


def test_equal_videos_are_finite_and_best() -> None:
    found = compare(video(), video())
    assert found.psnr > 100
    assert math.isfinite(found.psnr)
    assert found.ssim == pytest.approx(1.0)


def test_values_outside_the_range_count_as_its_ends() -> None:
    a = torch.ones(3, 1, 16, 16)
    assert psnr(a * 3, a) > 100


def test_psnr_of_a_video_is_that_of_its_mean_error_and_not_the_mean_psnr() -> None:
    a = torch.zeros(3, 2, 16, 16)
    b = a.clone()
    b[:, 1] += 2 * 0.1
    assert frame_psnr(a, b)[1].item() == pytest.approx(20.0, abs=1e-4)
    assert psnr(a, b) == pytest.approx(20 + 10 * math.log10(2), abs=1e-4)


def test_first_frame_is_reported_by_itself() -> None:
    a, b = video(), video()
    b[:, 0] = -b[:, 0]
    found = compare(a, b)
    assert found.first_psnr == found.frame_psnr[0]
    assert found.first_psnr < found.frame_psnr[1]
    assert found.first_ssim < found.ssim < 1


def test_ssim_sees_lost_structure_where_psnr_is_equal() -> None:
    stripes = torch.zeros(3, 1, 32, 32)
    stripes[..., ::4] = 0.4
    brighter = stripes + 0.2
    flat = torch.full_like(stripes, stripes.mean().item())
    flat = stripes + (flat - stripes) * (0.2 / (flat - stripes).square().mean().sqrt())
    assert psnr(stripes, brighter) == pytest.approx(psnr(stripes, flat), abs=0.1)
    assert frame_ssim(stripes, brighter) > frame_ssim(stripes, flat) + 0.2


def test_thinning_out_frames_leaves_psnr_and_motion_alone() -> None:
    a, b = video(5), video(5, seed=1)
    some, all_frames = compare(a, b, every=2), compare(a, b)
    assert (some.psnr, some.flicker, some.motion_psnr) == (all_frames.psnr, all_frames.flicker, all_frames.motion_psnr)
    assert len(some.frame_psnr) == 5
