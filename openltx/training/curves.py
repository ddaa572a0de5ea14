"""A picture of the loss curves of a run, drawn with Pillow alone, so that it needs nothing installed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 960, 240, 48  # of one panel; the margin holds the labels
SMOOTHING_SPAN = 50  # each panel has a window of a 50th of its length
PALE, STRONG, INK = (190, 205, 225), (30, 80, 160), (60, 60, 60)


def plot_curves(records: Sequence[Mapping[str, int | float]], path: Path, *, suffix: str = "/loss") -> None:
    """Write a PNG with one panel for each positive value whose name ends in `suffix`: log scale, raw and smoothed."""
    names = sorted({name for record in records for name in record if name.endswith(suffix)})
    image = Image.new("RGB", (WIDTH, HEIGHT * max(1, len(names))), "white")
    for row, name in enumerate(names):
        points = [(record["step"], record[name]) for record in records if record.get(name, 0.0) > 0.0]
        if points:
            _draw_panel(ImageDraw.Draw(image), row * HEIGHT, name, points)
    temporary = path.with_name(".partial_" + path.name)
    image.save(temporary)
    temporary.replace(path)


def _draw_panel(draw: ImageDraw.ImageDraw, top: int, name: str, points: Sequence[tuple[int | float, float]]) -> None:
    steps = [step for step, _ in points]
    logs = [math.log10(value) for _, value in points]
    smooth = _smoothed(logs, max(1, len(logs) // SMOOTHING_SPAN))
    low, high = min(logs), max(logs)

    def place(step: int | float, value: float) -> tuple[float, float]:
        x = (step - steps[0]) / max(1, steps[-1] - steps[0])
        y = (value - low) / max(1e-9, high - low)
        return MARGIN + x * (WIDTH - 2 * MARGIN), top + HEIGHT - 24 - y * (HEIGHT - 48)

    for curve, colour in ((logs, PALE), (smooth, STRONG)):
        draw.line([place(step, value) for step, value in zip(steps, curve, strict=True)], fill=colour, width=2)
    draw.text((MARGIN, top + 4), f"{name}   last {10 ** smooth[-1]:.4g} (smoothed)", fill=INK)
    draw.text((4, top + 20), f"{10**high:.3g}", fill=INK)
    draw.text((4, top + HEIGHT - 32), f"{10**low:.3g}", fill=INK)
    draw.text((MARGIN, top + HEIGHT - 18), f"{steps[0]:.0f}", fill=INK)
    draw.text((WIDTH - MARGIN - 30, top + HEIGHT - 18), f"step {steps[-1]:.0f}", fill=INK)


def _smoothed(values: Sequence[float], window: int) -> list[float]:
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    starts = [max(0, end - window) for end in range(1, len(sums))]
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, start=1)]
