"""Classifier-free guidance, and the rescale that keeps its contrast in check.

As in the official sampler, which however rescales only together with spatio-temporal guidance.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """cfg: how far to go from the negative prompt's velocity past the prompt's; 1 ignores the negative prompt.

    rescale: how much of the prompt's own standard deviation to restore afterwards, 0 (off) to 1 (all).
    """

    cfg: float = 1.0
    rescale: float = 0.0

    @property
    def needs_negative(self) -> bool:
        """Whether the negative prompt's velocity must be computed at all."""
        return self.cfg != 1.0


def guide(
    positive: Float[Tensor, "b n c"], negative: Float[Tensor, "b n c"], guidance: Guidance
) -> Float[Tensor, "b n c"]:
    """negative + cfg * (positive - negative), then scaled towards the standard deviation of ``positive``."""
    guided = negative + guidance.cfg * (positive - negative)
    if guidance.rescale == 0:
        return guided
    ratio = _std(positive) / _std(guided)
    return guided * (guidance.rescale * ratio + 1 - guidance.rescale)


def _std(x: Tensor) -> Tensor:
    return torch.std(x, dim=(1, 2), keepdim=True)
