"""From a detection to pixels: which colour of the palette a solid has, and which pixels are its own.

The colour is read where the solid surely is, in the middle of its disc, in CIELAB: shading changes lightness and chroma
but hardly the hue, so chromatic colours are told apart by hue (and a little by lightness, since metal mirrors the sky),
white and black by lightness. The mask is found by comparing every pixel near by with the middle of the disc and with
the surroundings.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

from openltx.data.worlds.playroom.scene import PALETTE, lab
from openltx.eval.probe import Detection

ACHROMATIC = 17.0  # CIELAB chroma below which a colour counts as white or black
WHITE_FROM = 45.0  # CIELAB lightness
HUE_SPREAD, LIGHTNESS_SPREAD = 15.0, 18.0  # degrees and CIELAB lightness by which shading and mirrored skies change one
SHADED = 0.8  # lightness of a solid's middle, as a share of the palette's
SHADING_WEIGHT = 0.5  # how much a difference of lightness counts against one of hue or chroma
SAMPLES = 30  # pixels that stand for the solid, and twice as many for its surroundings


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A solid's pixels in one frame, summed up: mean x and y, lowest row, and how upright it is (0 flat, 1 a pole)."""

    x: float
    y: float
    bottom: float
    area: float
    upright: float


def to_lab(frames: UInt8[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """CIELAB of every pixel, of colours rounded to 64 levels a channel."""
    red, green, blue = np.moveaxis(frames >> 2, -1, 0).astype(np.int32)
    return _lab_table()[(red << 12) + (green << 6) + blue]


@cache
def _lab_table() -> Float[np.ndarray, "262144 3"]:
    from skimage.color import rgb2lab

    levels = (np.arange(64) * 4 + 2) / 256
    return (
        rgb2lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)).reshape(-1, 3).astype(np.float32)
    )


def core_colour(frame: Float[np.ndarray, "H W 3"], found: Detection) -> Float[np.ndarray, "3"] | None:
    """The median CIELAB in the middle of a detection; None if that is out of the picture."""
    inside = disc(frame.shape[:2], found, 0.5)
    return np.median(frame[inside], axis=0) if inside.sum() >= 4 else None


def colour_name(colour: Float[np.ndarray, "3"]) -> str:
    """The palette's name for a CIELAB colour of a shaded solid."""
    if np.hypot(colour[1], colour[2]) < ACHROMATIC:
        return "white" if colour[0] > WHITE_FROM else "black"
    hue, lightness = math.degrees(math.atan2(colour[2], colour[1])), float(colour[0])

    def distance(name: str) -> float:
        its_hue, its_lightness = CHROMATIC[name]
        turn = abs((hue - its_hue + 180) % 360 - 180)
        return (turn / HUE_SPREAD) ** 2 + ((lightness - its_lightness) / LIGHTNESS_SPREAD) ** 2

    return min(CHROMATIC, key=distance)


def segment(frame: Float[np.ndarray, "H W 3"], found: Detection) -> Segment | None:
    """The solid's own pixels around a detection; None if none are left."""
    mask = solid_mask(frame, found)
    rows, columns = np.nonzero(mask)
    if len(rows) < 4:
        return None
    spread_x, spread_y = columns.var() + 1 / 12, rows.var() + 1 / 12
    return Segment(
        x=float(columns.mean() + 0.5),
        y=float(rows.mean() + 0.5),
        bottom=float(np.percentile(rows, 97) + 1),
        area=float(len(rows)),
        upright=float(spread_y / (spread_x + spread_y)),
    )


def solid_mask(frame: Float[np.ndarray, "H W 3"], found: Detection) -> Bool[np.ndarray, "H W"]:
    """Pixels within 1.7 radii that are nearer in colour to the detection's middle than to what surrounds it."""
    from skimage.measure import label

    near = disc(frame.shape[:2], found, 1.7)
    core = disc(frame.shape[:2], found, 0.45)
    around = disc(frame.shape[:2], found, 2.5) & ~near
    empty = np.zeros_like(near)
    if core.sum() < 4 or around.sum() < 4:
        return core
    weights = np.array([SHADING_WEIGHT, 1, 1], np.float32)
    pixels = frame[near] * weights
    own = _nearest(pixels, _some(frame[core], SAMPLES) * weights)
    other = _nearest(pixels, _some(frame[around], 2 * SAMPLES) * weights)
    empty[near] = own < other
    parts = np.asarray(label(empty, connectivity=1))
    touched = np.bincount(parts[core & empty], minlength=1)
    touched[:1] = 0
    return parts == touched.argmax() if touched.any() else core


def disc(shape: tuple[int, ...], found: Detection, radii: float) -> Bool[np.ndarray, "H W"]:
    """Pixels within so many radii of a detection's centre."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (columns + 0.5 - found.x) ** 2 + (rows + 0.5 - found.y) ** 2 <= (radii * found.radius) ** 2


def _some(pixels: np.ndarray, count: int) -> np.ndarray:
    return pixels[np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)]


def _nearest(pixels: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Squared distance of each pixel to the nearest sample."""
    squared = (pixels**2).sum(1)[:, None] + (samples**2).sum(1)[None] - 2 * pixels @ samples.T
    return squared.min(1)


def _hue_and_lightness(name: str) -> tuple[float, float]:
    colour = lab(PALETTE[name])
    return math.degrees(math.atan2(colour[2], colour[1])), SHADED * float(colour[0])


CHROMATIC = {name: _hue_and_lightness(name) for name in PALETTE if name not in ("white", "black")}
