"""How close a video is to another: PSNR, SSIM and LPIPS, frame by frame.

Videos are `3 F H W` in [-1, 1]; values outside are clamped first, as writing a file would. PSNR of a video is that of
its mean squared error over all frames (not the mean of the frames' PSNRs). SSIM follows Wang et al. 2004: Gaussian
windows of sigma 1.5 over each colour channel. LPIPS is v0.1.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openltx.models.lpips import LPIPS

SMALLEST_ERROR = 1e-10  # equal videos get 10 log10(4 / 1e-10) = 106 dB instead of infinity


def psnr(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> float:
    """Peak signal-to-noise ratio in dB, for values in [-1, 1]; at most 106."""
    return _decibel(_squared_error(a, b).mean()).item()


def frame_psnr(a: Float[Tensor, "3 F H W"], b: Float[Tensor, "3 F H W"]) -> Float[Tensor, "F"]:
    """PSNR of each frame in dB."""
    return _decibel(_squared_error(a, b).mean(dim=(0, 2, 3)))


def frame_ssim(a: Float[Tensor, "3 F H W"], b: Float[Tensor, "3 F H W"]) -> Float[Tensor, "F"]:
    """Structural similarity of each frame, 1 for equal ones; frames of at least 11 pixels a side."""
    from skimage.metrics import structural_similarity

    frames_a, frames_b = (_to_unit_range(x).permute(1, 2, 3, 0).cpu().numpy() for x in (a, b))
    values = [
        structural_similarity(
            x, y, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(frames_a, frames_b, strict=True)
    ]
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def frame_lpips(lpips: LPIPS, a: Float[Tensor, "3 F H W"], b: Float[Tensor, "3 F H W"]) -> Float[Tensor, "F"]:
    """LPIPS of each frame, 0 for equal ones."""
    return lpips(a.clamp(-1, 1).transpose(0, 1).float(), b.clamp(-1, 1).transpose(0, 1).float())


def _squared_error(a: Tensor, b: Tensor) -> Tensor:
    return (_to_unit_range(a) - _to_unit_range(b)).square()


def _to_unit_range(x: Tensor) -> Tensor:
    return (x.float().clamp(-1, 1) + 1) / 2


def _decibel(squared_error: Tensor) -> Tensor:
    return -10 * torch.log10(squared_error.clamp_min(SMALLEST_ERROR / 4))
