"""Text laid over the picture: titles, subtitles, watermarks, station names.

No text is read. What is measured is the share of the picture under shapes like lines of text: strong edges that stay
in place in every looked-at frame, side by side in a band that is much wider than high, and dark and light in turn along
it. Texture that stands still can look so too; hence the share of a whole picture, and a threshold.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from openltx.data.prepare.records import Measures
from openltx.data.prepare.settings import OverlaySettings
from openltx.data.prepare.stage import Look

SIDE = 640  # pixels across of the pictures that are looked at
CONTRAST = 60  # levels between a letter's stroke and its ground
MIN_HEIGHT, MAX_HEIGHT = 0.015, 0.15  # of a line of text, as shares of the picture's height
MIN_ASPECT = 2.5
MIN_STROKES = 6  # changes from dark to light along a line, at least
MIN_EVEN = 0.5  # the share of a line's length that has strokes


@dataclass(frozen=True)
class Overlay:
    """Measures the share of the picture that lines of text cover."""

    settings: OverlaySettings
    name = "overlay"

    def measure(self, look: Look) -> Measures:
        import cv2

        height, width = look.keys.shape[1:3]
        scale = min(1.0, SIDE / width)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        grey = [cv2.cvtColor(cv2.resize(k, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for k in look.keys]
        lines = text_lines(np.stack(grey))
        return {"share": round(sum(w * h for _, _, w, h in lines) / (size[0] * size[1]), 5), "lines": len(lines)}

    def objection(self, measures: Measures) -> str | None:
        if measures["share"] <= self.settings.max_share:
            return None
        return f"text over {measures['share']:.1%} of the picture"


def text_lines(grey: UInt8[np.ndarray, "k h w"]) -> list[tuple[int, int, int, int]]:
    """(left, top, width, height) of what looks like a line of text in all pictures."""
    import cv2

    square = np.ones((3, 3), np.uint8)
    contrast = np.min([cv2.morphologyEx(picture, cv2.MORPH_GRADIENT, square) for picture in grey], axis=0)
    strokes = (contrast >= CONTRAST).astype(np.uint8)
    height, width = strokes.shape
    joined = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, max(width // 40, 3)), np.uint8))
    joined = cv2.morphologyEx(joined, cv2.MORPH_OPEN, np.ones((max(height // 100, 2), max(width // 60, 3)), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    candidates = [(int(left), int(top), int(wide), int(high)) for left, top, wide, high, _ in boxes[1:count]]
    middle = grey[len(grey) // 2]
    return [box for box in candidates if _is_line(middle, strokes, box)]


def _is_line(grey: UInt8[np.ndarray, "h w"], strokes: UInt8[np.ndarray, "h w"], box: tuple[int, ...]) -> bool:
    left, top, width, height = box
    if not MIN_HEIGHT * len(grey) <= height <= MAX_HEIGHT * len(grey) or width < MIN_ASPECT * height:
        return False
    inside = strokes[top : top + height, left : left + width]
    part = grey[top : top + height, left : left + width].astype(int)
    light = part > (int(part.min()) + int(part.max())) // 2
    changes = np.abs(np.diff(light.astype(int), axis=1)).sum(axis=1)
    return (
        float(np.median(changes)) >= MIN_STROKES
        and float(inside.mean()) >= 0.35
        and float(inside.any(axis=0).mean()) >= MIN_EVEN
    )
