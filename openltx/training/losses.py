"""The pixel-space losses of the VAE. (Paper sections 2.1.4 to 2.1.6; the paper leaves the weights of the terms open.)

All take videos ``b 3 F H W`` in [-1, 1] and return scalars in float32.
"""

import torch
from jaxtyping import Float
from torch import Tensor

HAAR = 2**-0.5


def haar_3d(video: Float[Tensor, "b c F H W"]) -> Float[Tensor, "b 8 c f h w"]:
    """One level of the orthonormal 3D Haar transform: the 8 sub-bands LLL, LLH, ... HHH (time, row, column).

    A clip of 8k + 1 frames has its first frame doubled, so that an image is a clip at rest.
    """
    if video.shape[2] % 2:
        video = torch.cat([video[:, :, :1], video], 2)
    bands = [video]
    for axis in (2, 3, 4):
        bands = [band for x in bands for band in _haar(x, axis)]
    return torch.stack(bands, 1)


def _haar(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Low and high band along one axis."""
    even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
    return (even + odd) * HAAR, (even - odd) * HAAR


def dwt_loss(a: Float[Tensor, "b c F H W"], b: Float[Tensor, "b c F H W"], levels: int = 1) -> Float[Tensor, ""]:
    """Video DWT loss (2.1.5): mean absolute difference over the 8 sub-bands; further levels split LLL again.

    The paper leaves the wavelet, the levels and the weights open; ours are Haar, ``levels``, and equal weights.
    """
    difference = (a - b).float()  # the transform is linear
    total = difference.new_zeros(())
    for level in range(levels):
        bands = haar_3d(difference)
        total = total + (bands[:, 1:] if level < levels - 1 else bands).abs().mean()
        difference = bands[:, 0] / 8**0.5  # back to the range of pixels
    return total / levels


def gaussian_kl(mean: Float[Tensor, "b c f h w"], log_variance: Float[Tensor, "b c f h w"]) -> Float[Tensor, ""]:
    """KL(N(mean, variance) || N(0, 1)) per latent value, in nats."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def saliency(video: Float[Tensor, "b c F H W"], strength: float) -> Float[Tensor, "b 1 F H W"]:
    """Pixel weights of mean 1 that favour what moves: 1 + strength x distance from the clip's mean frame, normalised.

    Objects cover a few per cent of a frame; without this, the background is all that an early VAE learns. For a single
    frame the distance is taken from the frame's own mean colour.
    """
    axes = (2,) if video.shape[2] > 1 else (3, 4)
    distance = (video - video.mean(axes, keepdim=True)).abs().mean(1, keepdim=True)
    weight = 1 + strength * distance
    return weight / weight.mean((2, 3, 4), keepdim=True)
