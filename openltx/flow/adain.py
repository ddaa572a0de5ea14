"""Adaptive instance normalisation: latents take over the mean and the contrast of others, channel by channel.

    AdaIN(z, ref) = (z - mean(z)) / std(z) * std(ref) + mean(ref)        over all frames, rows and columns of a channel

(Huang & Belongie 2017.) An upscaler or a new window of a long video shifts the latents' statistics, and so the colours;
this brings them back. The result does not depend on whether both are normalised or both are not.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def adain(
    latents: Float[Tensor, "b c f h w"], reference: Float[Tensor, "b c f2 h2 w2"], factor: float = 1.0
) -> Float[Tensor, "b c f h w"]:
    """``latents`` with ``reference``'s statistics, at ``factor`` 1; 0 changes nothing, between them is a mixture.

    A channel without any contrast becomes the reference's mean.
    """
    mean, std = _statistics(latents)
    wanted_mean, wanted_std = _statistics(reference)
    smallest = torch.finfo(torch.float32).tiny
    moved = (latents.float() - mean) / std.clamp(min=smallest) * wanted_std + wanted_mean
    return torch.lerp(latents.float(), moved, factor).to(latents.dtype)


def _statistics(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each channel (0 for a single number), in float32, as (b c 1 1 1)."""
    correction = int(z[0, 0].numel() > 1)
    std, mean = torch.std_mean(z.float(), dim=(2, 3, 4), correction=correction, keepdim=True)
    return mean, std
