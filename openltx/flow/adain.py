"""Adaptive instance normalisation: latents take over another video's mean and deviation. (Huang & Belongie 2017.)

    z' = std(r) (z - mean(z)) / std(z) + mean(r)          for each sample and channel, over f, h and w

Of use wherever latents are made from latents and may drift: from window to window of a long video, and between the two
passes of multi-scale sampling.
"""

from jaxtyping import Float
from torch import Tensor

_OVER = (2, 3, 4)
_LEAST_STD = 1e-12  # of a constant channel nothing is left but the reference's mean


def adain(
    latents: Float[Tensor, "b c f h w"], reference: Float[Tensor, "b c f2 h2 w2"], factor: float = 1.0
) -> Float[Tensor, "b c f h w"]:
    """``latents`` with the statistics of ``reference``: wholly for ``factor`` 1, not at all for 0, linear between.

    The standard deviations are unbiased, as in the released code.
    """
    mean, std = latents.mean(_OVER, keepdim=True), latents.std(_OVER, keepdim=True).clamp(min=_LEAST_STD)
    target_mean, target_std = reference.mean(_OVER, keepdim=True), reference.std(_OVER, keepdim=True)
    return latents.lerp((latents - mean) / std * target_std + target_mean, factor)
