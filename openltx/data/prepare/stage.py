"""What a stage is: it measures a clip's frames, and says from the numbers alone whether the clip should be left out.

Measuring and judging are apart so that a threshold can be changed without decoding a frame again.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from openltx.data.prepare.records import Measures

KEYS = 5  # frames of a clip that are looked at in full size
SMALL_WIDTH = 256


@dataclass(frozen=True, kw_only=True)
class Look:
    """What stages see of a clip: all frames, small, and a few evenly spaced ones as they are."""

    fps: float
    small: UInt8[np.ndarray, "F _ _ 3"]
    keys: UInt8[np.ndarray, "_ H W 3"]

    def without_bars(self, top: int, bottom: int, left: int, right: int) -> "Look":
        """With so many rows and columns of the full size cut off."""
        return replace(
            self,
            small=cut_off(self.small, *self._scaled(top, bottom, left, right)),
            keys=cut_off(self.keys, top, bottom, left, right),
        )

    def _scaled(self, top: int, bottom: int, left: int, right: int) -> tuple[int, int, int, int]:
        """The same borders in small frames, outwards to whole pixels."""
        down, across = (small / full for small, full in zip(self.small.shape[1:3], self.keys.shape[1:3], strict=True))
        first, last = int(np.ceil(top * down)), int(np.ceil(bottom * down))
        return first, last, int(np.ceil(left * across)), int(np.ceil(right * across))


@runtime_checkable  # for the type checks of the tests
class Judge(Protocol):
    """What says from measures whether a clip should be left out."""

    @property
    def name(self) -> str:
        """Under which the measures stand in a record."""
        ...

    def objection(self, measures: Measures) -> str | None:
        """Why a clip with these numbers should be left out; None if it should not."""
        ...


@runtime_checkable  # for the type checks of the tests
class Stage(Judge, Protocol):
    """One measurement, and its judgement."""

    def measure(self, look: Look) -> Measures:
        """Numbers for the record: a pure function of the frames."""
        ...


def cut_off(
    frames: UInt8[np.ndarray, "F _ _ 3"], top: int, bottom: int, left: int, right: int
) -> UInt8[np.ndarray, "F _ _ 3"]:
    """Frames without so many rows above and below, and columns left and right."""
    height, width = frames.shape[1:3]
    return frames[:, top : height - bottom, left : width - right]


def rounded(value: float | np.floating) -> float:
    """Five significant digits: what a measure is worth, and short lines."""
    return float(f"{float(value):.5g}")
