"""The VAE's losses against independent formulas (PyWavelets for the Haar transform)."""

import numpy as np
import pytest
import pywt
import torch

from openltx.training.losses import dwt_loss, gaussian_kl, haar_3d, saliency


def test_haar_equals_pywavelets() -> None:
    video = torch.randn(1, 1, 4, 6, 8, dtype=torch.float64)
    ours = haar_3d(video)[0, :, 0].numpy()
    theirs = pywt.dwtn(video[0, 0].numpy(), "haar")
    names = [a + b + c for a in "ad" for b in "ad" for c in "ad"]
    for band, name in zip(ours, names, strict=True):
        np.testing.assert_allclose(band, theirs[name], atol=1e-12)


def test_haar_keeps_energy() -> None:
    video = torch.randn(1, 3, 8, 8, 8)
    torch.testing.assert_close(haar_3d(video).square().sum(), video.square().sum())


def test_an_odd_clip_has_its_first_frame_doubled() -> None:
    still = torch.randn(1, 3, 1, 4, 4).expand(-1, -1, 9, -1, -1)
    assert haar_3d(still).shape == (1, 8, 3, 5, 2, 2)
    assert haar_3d(still)[:, 4:].abs().max() == 0  # nothing in the high band of time


def test_dwt_loss_is_zero_for_equal_videos_and_sees_detail_that_the_mean_misses() -> None:
    flat = torch.zeros(1, 3, 9, 8, 8)
    checkered = flat + 0.1 * (torch.arange(8)[:, None] + torch.arange(8) & 1).mul(2).sub(1)
    assert dwt_loss(flat, flat, 2) == 0
    assert dwt_loss(checkered, flat, 1) > 0
    assert haar_3d(checkered)[:, 0].abs().max() < 1e-6  # only the high bands see it


@pytest.mark.parametrize("levels", [1, 2])
def test_dwt_loss_levels_split_the_low_band(levels: int) -> None:
    a, b = torch.randn(2, 1, 3, 8, 16, 16)
    bands, low, total = [], (a - b).numpy(), 0.0
    for level in range(levels):
        split = pywt.dwtn(low, "haar", axes=(2, 3, 4))
        kept = [v for k, v in split.items() if level == levels - 1 or k != "aaa"]
        total += np.abs(np.stack(kept)).mean()
        low = split["aaa"] / 8**0.5
        bands.append(kept)
    torch.testing.assert_close(dwt_loss(a, b, levels), torch.tensor(total / levels, dtype=torch.float32))


def test_kl_equals_torch_distributions() -> None:
    mean, log_variance = torch.randn(2, 1, 4, 2, 3, 3)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_saliency_favours_what_moves_and_has_mean_one() -> None:
    video = torch.zeros(1, 3, 9, 8, 8)
    for f in range(8):
        video[:, :, f, 4, f] = 1
    weight = saliency(video, 4.0)
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
    assert weight[0, 0, 3, 4, 3] > 3 * weight[0, 0, 3, 0, 0]
