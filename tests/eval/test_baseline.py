"""Downsampling as a baseline: it keeps to its budget, loses nothing when it may keep all, and the best way is found."""

import pytest
import torch

from openltx.eval.baseline import (
    RATIOS,
    TIME_FACTORS,
    Downsampling,
    best_downsampling,
    latent_numbers,
    resample,
)
from openltx.eval.metrics import psnr
from openltx.models.presets import vae_preset

SIZES = ((25, 128, 128), (49, 128, 160), (1, 64, 64), (9, 32, 96), (121, 512, 768))


def smooth_noise(size: tuple[int, int, int], kept: tuple[int, int, int]) -> torch.Tensor:
    """Noise that was smoothed to what a smaller size can hold."""
    noise = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return resample(noise, kept)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 128])
def test_every_way_keeps_at_most_as_many_numbers_as_the_latents(size: tuple[int, int, int], channels: int) -> None:
    budget = latent_numbers(vae_preset("tiny", latent_channels=channels), size)
    for way in (Downsampling(time=time, ratio=ratio) for time in TIME_FACTORS for ratio in RATIOS):
        frames, rows, columns = way.size(size, budget)
        assert 3 * frames * rows * columns <= budget
        assert all(1 <= part <= whole for part, whole in zip((frames, rows, columns), size, strict=True))


def test_the_budget_is_the_count_of_the_latents_and_most_of_it_is_used() -> None:
    config = vae_preset("0.9.5")
    assert latent_numbers(config, (25, 128, 128)) == 128 * 4 * 4 * 4
    assert latent_numbers(config, (121, 512, 768)) == 128 * 16 * 16 * 24
    for time in (1.0, 2.0, 4.0):
        frames, rows, columns = Downsampling(time=time, ratio=1.0).size((25, 128, 128), 8192)
        assert 3 * frames * rows * columns > 0.9 * 8192


def test_keeping_every_number_changes_nothing() -> None:
    video = torch.rand(3, 5, 16, 24) * 2 - 1
    torch.testing.assert_close(resample(video, (5, 16, 24)), video)


def test_a_constant_video_survives_any_size() -> None:
    video = torch.full((3, 9, 32, 32), 0.3)
    torch.testing.assert_close(resample(video, (2, 3, 5)), video)


def test_more_rows_are_kept_where_the_height_holds_the_detail() -> None:
    stripes = torch.zeros(3, 9, 32, 32)
    stripes[:, :, ::8] = 0.5
    best = best_downsampling([stripes], lambda _: 700)
    assert best.ratio < 1
    assert best_downsampling([stripes.mT], lambda _: 700).ratio > 1


def test_a_still_video_spends_nothing_on_time() -> None:
    picture = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    still = picture.expand(3, 25, 32, 32)
    best = best_downsampling([still], lambda _: 1200)
    assert best.size((25, 32, 32), 1200)[0] == 1


def test_the_search_beats_every_other_way_and_tells_how_far_it_is() -> None:
    video, told = smooth_noise((9, 32, 32), (5, 16, 16)), []
    best = best_downsampling([video, video], lambda _: 2000, told.append)
    assert told == [1, 2]
    reached = psnr(resample(video, best.size((9, 32, 32), 2000)), video)
    for time in (1.0, 4.0, 8.0):
        other = Downsampling(time=time, ratio=1.0).size((9, 32, 32), 2000)
        assert reached >= psnr(resample(video, other), video)
