"""At which times to evaluate the model: inference schedules, and the distribution of t in training. (Paper 2.5.)

Schedules are 1-D float32 tensors of the times at which the model is called, from 1 (noise) downwards; the final 0, at
which it is not called, is left out. More tokens need more noise to hide the same content, so both the schedules of
0.9.0 and 0.9.1 and the training distribution shift towards t = 1 with the token count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.errors import RequestError

Anchor = tuple[int, float]

LOW_ANCHOR: Anchor = (1024, 0.95)
HIGH_ANCHOR: Anchor = (4096, 2.05)
BASE_RESOLUTION = 32 * 32
CLAMPED_PERCENTILES = (0.005, 0.999)
Tails = Literal["flat", "stretched", "none"]
SMALLEST_STRETCHED, UNIFORM_SHARE = 1e-3, 0.1


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a checkpoint wants its times chosen.

    kind                   the spacing before any shift; "constant" is uniform times shifted by ``constant_mu``
    shift                  "tokens": move towards noise with the token count (mu linear between the two anchors);
                           "resolution": by the ratio of the token count to ``base_resolution`` (Hoogeboom et al. 2023)
    shift_low, shift_high  (tokens, mu) pairs
    terminal               stretch the times so that the last one is this (0.1 for 0.9.0 and 0.9.1); None leaves them
    """

    kind: Literal["uniform", "linear_quadratic", "constant"] = "linear_quadratic"
    shift: Literal["none", "tokens", "resolution"] = "none"
    shift_low: Anchor = LOW_ANCHOR
    shift_high: Anchor = HIGH_ANCHOR
    constant_mu: float = 0.0
    base_resolution: int = BASE_RESOLUTION
    terminal: float | None = None

    def times(self, steps: int, num_tokens: int) -> Float[Tensor, "steps"]:
        """The times of a sampling of ``steps`` model calls on ``num_tokens`` tokens, starting with 1."""
        match self.kind:
            case "uniform":
                t = uniform(steps)
            case "linear_quadratic":
                t = linear_quadratic(steps)
            case "constant":
                t = sd3_shift(uniform(steps), self.constant_mu)
        match self.shift:
            case "tokens":
                t = sd3_shift(t, shift_for_tokens(num_tokens, self.shift_low, self.shift_high))
            case "resolution":
                t = sd3_shift(t, math.log(num_tokens / self.base_resolution))
            case "none":
                pass
        return t if self.terminal is None else stretch_to_terminal(t, self.terminal)


def part_of(times: Float[Tensor, "steps"], skip_initial: int = 0, skip_final: int = 0) -> Float[Tensor, "_"]:
    """A schedule without its first and last times. From the last one that is kept a step still goes all the way to 0.

    Raises RequestError if nothing is left.
    """
    if skip_initial + skip_final >= len(times):
        raise RequestError(
            f"Of {len(times)} steps, {skip_initial} at the start and {skip_final} at the end are to be skipped, which "
            "leaves none. Skip fewer, or take more steps."
        )
    return times[skip_initial : len(times) - skip_final]


def require_allowed(times: Float[Tensor, "steps"], allowed: Sequence[float] | None) -> None:
    """Raise RequestError if a distilled model, which knows only the ``allowed`` times, would be called at others.

    Both are compared to four digits, as the releases write them.
    """
    if allowed is None:
        return
    known = {round(time, 4) for time in allowed}
    others = [time for time in (round(time, 4) for time in times.tolist()) if time not in known]
    if others:
        raise RequestError(
            f"This model was distilled for the times {', '.join(f'{time:g}' for time in allowed)}, and it would be "
            f"called at {', '.join(f'{time:g}' for time in others[:5])}. Choose times among those (--times), or leave "
            "steps and times to the model."
        )


def uniform(n: int) -> Float[Tensor, "n"]:
    """1, ..., 2/n, 1/n."""
    _require_steps(n)
    return torch.linspace(1, 1 / n, n, dtype=torch.float64).float()


def linear_quadratic(n: int, threshold: float = 0.025) -> Float[Tensor, "n"]:
    """Small equal steps over the first half, down to 1 - ``threshold``; quadratically growing ones over the rest."""
    _require_steps(n)
    if n == 1:
        return torch.ones(1)
    half = n // 2
    rest = n - half
    i = torch.arange(n, dtype=torch.float64)
    linear = i * threshold / half
    # the parabola that continues the line with the same slope and reaches 1 at i = n
    curvature = (1 - threshold * n / half) / rest**2
    quadratic = threshold + (threshold / half) * (i - half) + curvature * (i - half) ** 2
    return (1 - torch.where(i < half, linear, quadratic)).float()


def shift_for_tokens(num_tokens: int, low: Anchor = LOW_ANCHOR, high: Anchor = HIGH_ANCHOR) -> float:
    """mu for a token count: the line through two (tokens, mu) anchors, not clamped beyond them."""
    slope = (high[1] - low[1]) / (high[0] - low[0])
    return low[1] + slope * (num_tokens - low[0])


def sd3_shift(t: Float[Tensor, "n"], mu: float) -> Float[Tensor, "n"]:
    """e^mu / (e^mu + 1/t - 1): adds mu to the logit of t, so mu > 0 moves towards noise and 1 stays 1."""
    t = t.double()
    return (1 / (1 + math.exp(-mu) * (1 / t - 1))).float()


def stretch_to_terminal(t: Float[Tensor, "n"], terminal: float) -> Float[Tensor, "n"]:
    """Stretch 1 - t so that the last time is ``terminal``. A single step, at t = 1, stays as it is."""
    reached = 1 - t[-1:].double()
    factor = torch.where(reached > 0, (1 - terminal) / reached, 1.0)
    return (1 - (1 - t.double()) * factor).float()


def sample_logit_normal(
    batch: int, mu: float, std: float = 1.0, generator: torch.Generator | None = None, tails: Tails = "flat"
) -> Float[Tensor, "batch"]:
    """Training times: t = sigmoid(N(mu, std)), with the density's tails held up. On the generator's device.

    "We clamp the pdf at percentiles 0.5 and 99.9" (paper 2.5) can be read in two ways:

        flat       the density is constant below the first and above the second percentile, at its value there. One
                   uniform number picks the region by its mass and, inverted, the place in it.
        stretched  what the official trainer of LTX-2 does: the two percentiles are moved to 0 and 1, what lies beyond
                   them is reflected or cut off, and one sample in ten is uniform.
        none       the plain logit-normal
    """
    device = generator.device if generator is not None else torch.device("cpu")
    if tails != "flat":
        t = torch.sigmoid(mu + std * torch.randn(batch, generator=generator, device=device, dtype=torch.float64))
        return (t if tails == "none" else _stretched(t, mu, std, generator)).float()
    low, high = CLAMPED_PERCENTILES
    t_low, pdf_low = _logit_normal_at(low, mu, std)
    t_high, pdf_high = _logit_normal_at(high, mu, std)
    mass_low, mass_middle, mass_high = t_low * pdf_low, high - low, (1 - t_high) * pdf_high

    u = torch.rand(batch, generator=generator, device=device, dtype=torch.float64)
    u = u * (mass_low + mass_middle + mass_high) - mass_low
    quantile = (low + u).clamp(low, high)
    middle = torch.sigmoid(mu + std * torch.special.ndtri(quantile))
    t = torch.where(u < 0, t_low + u / pdf_low, middle)
    t = torch.where(u > mass_middle, t_high + (u - mass_middle) / pdf_high, t)
    return t.clamp(0, 1).float()


def _stretched(t: Tensor, mu: float, std: float, generator: torch.Generator | None) -> Tensor:
    """The percentiles at 0 and 1, and one in ten uniform."""
    (low, _), (high, _) = (_logit_normal_at(percentile, mu, std) for percentile in CLAMPED_PERCENTILES)
    t = (t - low) / (high - low)
    t = torch.where(t < SMALLEST_STRETCHED, 2 * SMALLEST_STRETCHED - t, t).clamp(0, 1)
    chosen, uniform_t = torch.rand(2, len(t), generator=generator, device=t.device, dtype=t.dtype)
    return torch.where(chosen < UNIFORM_SHARE, uniform_t.clamp(min=SMALLEST_STRETCHED), t)


def _logit_normal_at(percentile: float, mu: float, std: float) -> tuple[float, float]:
    """The value t at a percentile of sigmoid(N(mu, std)) and the density there."""
    z = float(torch.special.ndtri(torch.tensor(percentile, dtype=torch.float64)))
    t = 1 / (1 + math.exp(-(mu + std * z)))
    return t, math.exp(-z * z / 2) / (math.sqrt(2 * math.pi) * std * t * (1 - t))


def _require_steps(n: int) -> None:
    if n < 1:
        raise RequestError(f"A sampling of {n} steps is not possible: ask for at least 1 step.")
