"""Interleaved timing: every contender once per round, so that a machine's moods fall on all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One line of the result: a piece of work, ours against another's.

    ratio        theirs / ours, of the medians: above 1, ours is faster (or smaller)
    error        our relative error against a float64 (or the stated) reference; ``their_error`` likewise
    """

    work: str
    against: str
    dtype: str
    ratio: float
    ours_s: float
    theirs_s: float
    error: float | None = None
    their_error: float | None = None
    unit: str = "s"
    note: str = ""


def race(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender, after one untimed call of each."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def relative_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """|got - exact| / |exact|, in float64."""
    exact = exact.double()
    return float((got.double() - exact).norm() / exact.norm())
