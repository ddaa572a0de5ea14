"""Rectified flow's straight path, and the token state that travels along it. (Paper section 2.5.)

The convention, stated here once: **t = 1 is noise, t = 0 is data**, and

    x_t = (1 - t) x_0 + t eps          the path
    v   = eps - x_0                    its velocity, what the transformer predicts
    x_0 = x_t - t v                    the clean estimate

``t`` may differ from token to token. A condition (say a given first frame, paper section 2.4) is nothing but tokens
whose t is small: a token of conditioning strength s has the effective time min(t, 1 - s), so a strength of 1 means
clean from start to end.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TokenState:
    """All tokens of a batch on their way from noise to data.

    tokens       the current x_t
    clean        x_0 of the conditioned tokens (zeros elsewhere; in training x_0 of all)
    strength     how much a token is conditioned: 0 free, 1 held clean
    positions    (seconds, pixels, pixels), see ``geometry.token_positions``
    num_targets  the last ``num_targets`` tokens are the video; any before them are extra conditioning tokens
    """

    tokens: Float[Tensor, "b n c"]
    clean: Float[Tensor, "b n c"]
    strength: Float[Tensor, "b n"]
    positions: Float[Tensor, "b 3 n"]
    num_targets: int

    def effective_t(self, t: Float[Tensor, "b"] | float) -> Float[Tensor, "b n"]:
        """Every token's own time, min(t, 1 - strength), when the sampler is at ``t``."""
        t = torch.as_tensor(t, dtype=self.strength.dtype, device=self.strength.device)
        return torch.minimum(t.reshape(-1, 1), 1 - self.strength)

    @property
    def targets(self) -> Float[Tensor, "b m c"]:
        """The tokens of the video itself, without extra conditioning tokens."""
        return self.tokens[:, self.tokens.shape[1] - self.num_targets :]


def interpolate(
    clean: Float[Tensor, "b *rest"], noise: Float[Tensor, "b *rest"], t: Float[Tensor, "..."]
) -> Float[Tensor, "b *rest"]:
    """x_t = (1 - t) x_0 + t eps, with ``t`` broadcast over the trailing axes."""
    t = _align(t, clean)
    return (1 - t) * clean + t * noise


def velocity(clean: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """v = eps - x_0."""
    return noise - clean


def clean_estimate(
    x_t: Float[Tensor, "b *rest"], v: Float[Tensor, "b *rest"], t: Float[Tensor, "..."]
) -> Float[Tensor, "b *rest"]:
    """x_0 = x_t - t v."""
    return x_t - _align(t, x_t) * v


def _align(t: Tensor, like: Tensor) -> Tensor:
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim)).to(like.dtype)
