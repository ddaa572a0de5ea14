"""A number with its uncertainty: value, 95% interval, and how many videos or answers it is from.

Means are resampled with replacement (the percentile bootstrap, Efron 1979), shares get Wilson's interval. A number of a
whole set, as a Frechet distance is, would come out too large on resampled sets, in which videos repeat; it gets the
jackknife's normal interval, from the set without each video, or group of videos, in turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
TAIL = 2.5  # percent on each side
NORMAL = 1.96  # standard errors of a normal 95% interval
GROUPS = 20

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value, its 95% interval (None where one sample tells nothing of it), and the number of samples."""

    value: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean_of(values: Sequence[float | None], seed: int = 0, *, is_share: bool = False) -> Estimate | None:
    """The known values' mean with its interval; None if there are none. ``is_share``: they are outcomes, 0 or 1."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(known):
        return None
    low, high = None, None
    if is_share:
        low, high = share_interval(known)
    elif len(known) > 1:
        draws = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
        low, high = percentile_interval(known[draws].mean(1))
    return Estimate(value=float(known.mean()), low=low, high=high, n=len(known))


def share_interval(outcomes: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Wilson's interval (1927) of a share, from outcomes that are 0 or 1; it has a width where all are alike too."""
    n, share, square = len(outcomes), outcomes.mean(), NORMAL**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    spread = NORMAL / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n**2))
    return max(float(centre - spread), 0.0), min(float(centre + spread), 1.0)


def mean_as_json(values: Sequence[float | None], seed: int = 0, *, is_share: bool = False) -> dict[str, Any] | None:
    """``mean_of`` as JSON values."""
    estimate = mean_of(values, seed, is_share=is_share)
    return None if estimate is None else asdict(estimate)


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled values."""
    low, high = np.percentile(resampled, [TAIL, 100 - TAIL])
    return float(low), float(high)


def jackknife(items: Sequence[T], statistic: Callable[[Sequence[T]], float]) -> Estimate:
    """A statistic of a set, with an interval from the set without each of at most 20 groups of it in turn.

    It takes three items at least to have one.
    """
    value, n = statistic(items), len(items)
    if n < 3:
        return Estimate(value=value, low=None, high=None, n=n)
    groups = min(n, GROUPS)
    without = np.array([statistic([x for i, x in enumerate(items) if i % groups != g]) for g in range(groups)])
    error = NORMAL * float(np.sqrt((groups - 1) * without.var()))
    return Estimate(value=value, low=value - error, high=value + error, n=n)
