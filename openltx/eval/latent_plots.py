"""Two pictures of `latents.ChannelUse`, drawn with Pillow alone: explained variance, and correlation matrices."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from openltx.eval.latents import ChannelUse

WIDTH, HEIGHT, MARGIN = 720, 480, 56
CELL, GAP, PER_ROW = 256, 24, 4  # of a correlation matrix: its side, the space around it, how many side by side
FIRST, LAST = (250, 190, 90), (60, 30, 130)  # colours of the first and the last checkpoint; those between are mixed
INK, PALE = (60, 60, 60), (215, 215, 215)
NEGATIVE, POSITIVE = (30, 80, 190), (200, 40, 30)
TITLE, LINE = 14, 20


def explained_variance(uses: Sequence[ChannelUse]) -> Image.Image:
    """A curve for each VAE: the share of the variance in the first k components; grey: all components alike."""
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TITLE)
    most = float(max(len(use.covariance) for use in uses))

    def place(components: float, share: float) -> tuple[float, float]:
        x = MARGIN + components / most * (WIDTH - 2 * MARGIN)
        return x, HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        draw.line([place(0.0, share), place(most, share)], fill=PALE)
        draw.text((8, place(0.0, share)[1] - 8), f"{share:.0%}", font=font, fill=INK)
        draw.text((place(share * most, 0.0)[0] - 8, HEIGHT - MARGIN + 6), f"{share * most:g}", font=font, fill=INK)
    draw.line([place(0.0, 0.0), place(most, 1.0)], fill=PALE, width=2)
    for index, use in enumerate(uses):
        points = [(0.0, 0.0), *((float(k), share) for k, share in enumerate(use.explained.tolist(), start=1))]
        draw.line([place(*point) for point in points], fill=_colour(index, len(uses)), width=2)
    for index, use in enumerate(uses):
        y = HEIGHT - MARGIN - (len(uses) - index) * LINE - 8
        draw.line([(WIDTH / 2, y + 9), (WIDTH / 2 + 24, y + 9)], fill=_colour(index, len(uses)), width=3)
        draw.text((WIDTH / 2 + 32, y), use.name, font=font, fill=INK)
    draw.text((MARGIN, 12), "variance in the first k principal components of the latents", font=font, fill=INK)
    draw.text((WIDTH - MARGIN - 16, HEIGHT - MARGIN + 26), "k", font=font, fill=INK)
    return page


def correlation_matrices(uses: Sequence[ChannelUse]) -> Image.Image:
    """The channels' correlations, a square for each VAE: white is 0, red 1, blue -1."""
    columns = min(len(uses), PER_ROW)
    rows = -(-len(uses) // columns)
    step_x, step_y = CELL + GAP, CELL + GAP + 2 * LINE
    page = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TITLE)
    for index, use in enumerate(uses):
        x, y = GAP + index % columns * step_x, GAP + index // columns * step_y
        pairs = use.off_diagonal
        draw.text((x, y), use.name, font=font, fill=INK)
        mean = pairs.mean() if len(pairs) else 0.0
        draw.text((x, y + LINE), f"off the diagonal {mean:.3f} on average", font=font, fill=INK)
        side = len(use.covariance)
        resample = Image.Resampling.NEAREST if side <= CELL else Image.Resampling.BOX
        square = Image.fromarray(paint(use.correlation)).resize((CELL, CELL), resample)
        page.paste(square, (x, y + 2 * LINE))
        draw.rectangle([x - 1, y + 2 * LINE - 1, x + CELL, y + 2 * LINE + CELL], outline=PALE)
    return page


def paint(correlation: Float[np.ndarray, "c c"]) -> UInt8[np.ndarray, "c c 3"]:
    """Values from -1 to 1 as colours from blue over white to red."""
    strength = np.abs(correlation).clip(0, 1)[..., None]
    colour = np.where(correlation[..., None] < 0, np.array(NEGATIVE, float), np.array(POSITIVE, float))
    return (255 + strength * (colour - 255)).round().astype(np.uint8)


def _colour(index: int, count: int) -> tuple[int, int, int]:
    share = index / max(count - 1, 1) if count > 1 else 1.0
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(FIRST, LAST, strict=True))
    return red, green, blue
