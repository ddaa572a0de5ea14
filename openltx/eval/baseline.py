"""The plain alternative to an autoencoder: keep a smaller video, of as many numbers as the latents, and enlarge it.

A 25 x 128 x 128 clip has 8,192 latent numbers at 128 channels per 8 x 32 x 32 pixels. A smaller clip of 3 colours may
keep as many, for example 5 x 23 x 23. How much of time, height and width to give up is searched for: every time factor
of ``TIME_FACTORS`` with every ratio of the height's to the width's factor in ``RATIOS``; each way fills the budget as
far as whole frames, rows and columns allow. Frames are scaled by antialiased cubic filters, and so is time.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from openltx.eval.metrics import psnr
from openltx.models.vae.autoencoder import VAEConfig

TIME_FACTORS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 24.0, 48.0)
RATIOS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)

Size = tuple[int, int, int]
"""Frames, rows, columns."""


@dataclass(frozen=True, kw_only=True)
class Downsampling:
    """A way to spend a budget of numbers: how many times fewer frames, and the height's factor over the width's."""

    time: float
    ratio: float

    def size(self, video: Size, budget: int) -> Size:
        """Frames, rows and columns kept of a video so that 3 colours take at most ``budget`` numbers (3 or more)."""
        frames, height, width = video
        kept = min(max(int(frames / self.time), 1), budget // 3)
        area = budget // (3 * kept)
        rows = min(max(int(math.sqrt(area * height / (width * self.ratio))), 1), height, area)
        columns = min(area // rows, width)
        return kept, rows, columns


def latent_numbers(config: VAEConfig, video: Size) -> int:
    """How many numbers the latents of a video hold, whose size is on the VAE's grid."""
    time, space = config.compression
    frames, height, width = video
    return config.latent_channels * ((frames - 1) // time + 1) * (height // space) * (width // space)


def best_downsampling(
    videos: Iterable[Float[Tensor, "3 _ _ _"]],
    budget: Callable[[Size], int],
    progress: Callable[[int], None] = lambda _: None,
) -> Downsampling:
    """The way with the highest mean PSNR over the videos; ``progress`` gets their number so far."""
    ways = [Downsampling(time=time, ratio=ratio) for time in TIME_FACTORS for ratio in RATIOS]
    totals = dict.fromkeys(ways, 0.0)
    for done, video in enumerate(videos, start=1):
        found: dict[Size, float] = {}  # several ways may come to one size
        size = size_of(video)
        for way in ways:
            kept = way.size(size, budget(size))
            if kept not in found:
                found[kept] = psnr(resample(video, kept), video)
            totals[way] += found[kept]
        progress(done)
    return max(ways, key=lambda way: totals[way])


@torch.inference_mode()
def resample(video: Float[Tensor, "3 F H W"], kept: Size) -> Float[Tensor, "3 F H W"]:
    """A video made as small as ``kept`` and enlarged again, clamped to [-1, 1]."""
    frames, height, width = size_of(video)
    small = _scale_time(_scale_space(video, kept[1], kept[2]), kept[0])
    return _scale_space(_scale_time(small, frames), height, width).clamp(-1, 1)


def size_of(video: Float[Tensor, "3 F H W"]) -> Size:
    """Frames, rows and columns of a video."""
    _, frames, height, width = video.shape
    return frames, height, width


def _scale_space(video: Tensor, height: int, width: int) -> Tensor:
    return _cubic(video, (height, width))


def _scale_time(video: Tensor, frames: int) -> Tensor:
    lines = rearrange(video, "c F H W -> c 1 F (H W)")
    scaled = _cubic(lines, (frames, lines.shape[3]))
    return rearrange(scaled, "c 1 F (H W) -> c F H W", H=video.shape[2])


def _cubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
