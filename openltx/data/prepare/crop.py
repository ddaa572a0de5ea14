"""Black bars above, below and beside the picture, the same for a whole clip.

A bar is a border whose pixels are all black in every frame, and that ends in a straight edge: beyond it some pixel is
brighter at once. A dark scene without such an edge keeps its borders.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from openltx.data.prepare.records import Measures
from openltx.data.prepare.settings import CropSettings
from openltx.data.prepare.stage import Look

BLACK = 28  # what compression leaves of black stays below
STEP = 16  # levels that the picture is brighter beyond a bar's edge
MIN_SHARE = 0.01  # of a side; thinner bars are cut off by resizing, or are none
EDGE = 3  # pixels in which the edge must rise


@dataclass(frozen=True)
class Crop:
    """Measures rows and columns of black: top, bottom, left, right, and the share of the picture that is left."""

    settings: CropSettings
    name = "crop"

    def measure(self, look: Look) -> Measures:
        brightest = look.keys.max(axis=(0, 3))  # H W
        rows = _darkness(np.sort(brightest, axis=1))
        columns = _darkness(np.sort(brightest, axis=0).T)
        small = look.small.max(axis=(0, 3))
        height, width = brightest.shape
        top, bottom = _border(rows), _border(rows[::-1])
        left, right = _border(columns), _border(columns[::-1])
        if top == height:
            return {"top": 0, "bottom": 0, "left": 0, "right": 0, "left_over": 0.0}
        down, across = small.shape[0] / height, small.shape[1] / width
        top, bottom = (
            side if _stays_black(strip, int(side * down) - 1) else 0
            for side, strip in ((top, small), (bottom, small[::-1]))
        )
        left, right = (
            side if _stays_black(strip, int(side * across) - 1) else 0
            for side, strip in ((left, small.T), (right, small.T[::-1]))
        )
        left_over = (height - top - bottom) * (width - left - right) / (height * width)
        return {"top": top, "bottom": bottom, "left": left, "right": right, "left_over": round(left_over, 4)}

    def objection(self, measures: Measures) -> str | None:
        if measures["left_over"] == 0.0:
            return "nothing but black"
        if measures["left_over"] < self.settings.min_left:
            return f"only {measures['left_over']:.0%} of the picture is no black bar"
        return None


def _darkness(sorted_lines: Float[np.ndarray, "n m"] | np.ndarray) -> np.ndarray:
    """How bright each line is: the level below which 99 % of its brightest-over-time pixels are."""
    return sorted_lines[:, int(0.99 * (sorted_lines.shape[1] - 1))].astype(int)


def _border(lines: np.ndarray) -> int:
    """How many lines from the first on are a bar; all of them if nothing is brighter than black."""
    dark: Bool[np.ndarray, "n"] = lines <= BLACK
    if dark.all():
        return len(lines)
    edge = int(np.argmin(dark))
    if edge < max(4, MIN_SHARE * len(lines)):
        return 0
    inside = int(lines[: max(edge - EDGE, 1)].max())
    if lines[edge : edge + EDGE].max() < inside + STEP or lines[edge : edge + EDGE].max() <= BLACK + STEP:
        return 0
    return edge + 1 if lines[edge] < lines[min(edge + 1, len(lines) - 1)] - STEP else edge  # a half-dark line goes too


def _stays_black(lines: np.ndarray, count: int) -> bool:
    """Whether the first ``count`` lines are black in all frames, but for a few pixels."""
    return count < 1 or bool((lines[:count] <= BLACK + 8).mean() > 0.99)
