"""How the camera moves, seen on the floor, so that the motion of solids can be told from it.

Playroom's cameras make one steady move through a clip, or none. The lower half of the picture is floor whatever the
camera's pitch; there a pan is a shift, a zoom a scale about the picture's middle, and an orbit a shear and a tilt about
the middle of the stage. For each of these moves the amount is found that best predicts each frame from the one before
(all amounts are tried, the best is refined as Lucas and Kanade 1981 do), with solids left out and outliers such as
moving shadows weighed down. The move that predicts best wins, if it is clearly better than no move.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

CELL = 2  # pixels are averaged over squares of this side
STEP = 2  # frames from a frame to the one that it predicts
PAIRS = 12  # at most so many pairs of frames, evenly spread
ITERATIONS = 4
OUTLIER = 0.08  # differences of brightness (of 1) beyond this count no more
CLEARLY = 0.96  # the error that a move may leave, as a share of that of no move
STAGE_ROW = 0.82  # where the floor at the middle of the stage appears, as a share of the picture's height
TILT = -0.22  # of the shear, in an orbit

Move = Literal["static", "pan", "zoom", "orbit"]


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """The move, and the floor's motion from each frame to the next, in pixels; ``centre`` and ``stage_y`` place it."""

    move: Move
    pan: float
    zoom: float
    shear: float
    tilt: float
    centre: tuple[float, float]
    stage_y: float

    def displacement(self, x: float, y: float) -> tuple[float, float]:
        """Where the floor at (x, y) goes until the next frame."""
        u, v, w = x - self.centre[0], y - self.centre[1], y - self.stage_y
        return self.pan + self.zoom * u + self.shear * w, self.zoom * v + self.tilt * u


def camera_motion(frames: UInt8[np.ndarray, "F H W 3"], solids: Bool[np.ndarray, "F H W"]) -> CameraMotion:
    """The move that explains the floor best, leaving out the pixels of ``solids``."""
    height, width = frames.shape[1:3]
    move, rates = _best(_Floor(frames, solids)) if len(frames) > STEP else STATIC
    pan, zoom, shear, tilt = (rates / STEP / np.array([1, width / 2, width / 2, width / 2])).tolist()
    return CameraMotion(
        move=move,
        pan=pan,
        zoom=zoom,
        shear=shear,
        tilt=tilt,
        centre=(width / 2, height / 2),
        stage_y=STAGE_ROW * height,
    )


class _Floor:
    """Pairs of frames of the lower half, and what each rate does there.

    Rates are pan, zoom, shear and tilt, the last three times half the width: all are pixels a step.
    """

    def __init__(self, frames: np.ndarray, solids: np.ndarray) -> None:
        height, width = frames.shape[1:3]
        top = height // 2
        grey = _shrink(frames[:, top:].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255)
        clear = _shrink((~solids[:, top:]).astype(np.float32)) > 0.99
        last = len(frames) - STEP
        starts = np.unique(np.linspace(0, last - 1, min(PAIRS, last)).round().astype(int))
        self.first, self.second = grey[starts], grey[starts + STEP]
        self.seen = clear[starts] & clear[starts + STEP]
        self.slopes = np.gradient(self.second, axis=2), np.gradient(self.second, axis=1)
        self.rows, self.columns = np.mgrid[: grey.shape[1], : grey.shape[2]]
        u = ((self.columns + 0.5) * CELL - width / 2) / (width / 2)
        v = ((self.rows + 0.5) * CELL + top - height / 2) / (width / 2)
        w = ((self.rows + 0.5) * CELL + top - STAGE_ROW * height) / (width / 2)
        zero, one = np.zeros_like(u), np.ones_like(u)
        self.basis = np.stack([np.stack([one, u, w, zero]), np.stack([zero, v, zero, u])]) / CELL

    def error(self, rates: np.ndarray) -> float:
        """Mean difference between the frames and their predictions, outliers cut."""
        found, _ = self._compare(rates, with_slopes=False)
        return float(np.minimum(np.abs(found), OUTLIER).mean()) if len(found) else OUTLIER

    def refine(self, rates: np.ndarray, free: list[int]) -> np.ndarray:
        """Gauss-Newton steps on the ``free`` rates."""
        rates = rates.copy()
        for _ in range(ITERATIONS):
            error, jacobian = self._compare(rates, with_slopes=True)
            if len(error) < 200:
                break
            jacobian = jacobian[free]
            scale = 3 * np.median(np.abs(error)) + 0.004
            weight = 1 / (1 + (error / scale) ** 2) ** 2
            normal = (jacobian * weight) @ jacobian.T + 1e-9 * len(error) * np.eye(len(free))
            rates[free] -= np.linalg.solve(normal, (jacobian * weight) @ error)
        return rates

    def _compare(self, rates: np.ndarray, *, with_slopes: bool) -> tuple[np.ndarray, np.ndarray]:
        from scipy.ndimage import map_coordinates

        shift_x, shift_y = np.tensordot(rates, self.basis, (0, 1))
        at = np.stack([self.rows + shift_y, self.columns + shift_x])
        inside = (at >= 0).all(0) & (at[0] <= self.rows.max()) & (at[1] <= self.columns.max())
        errors, jacobians = [np.zeros(0)], [np.zeros((4, 0))]
        for i, (first, second, seen) in enumerate(zip(self.first, self.second, self.seen, strict=True)):
            use = inside & seen
            places = at[:, use]
            errors.append(map_coordinates(second, places, order=1) - first[use])
            if with_slopes:
                dx, dy = (map_coordinates(slope[i], places, order=1) for slope in self.slopes)
                jacobians.append(dx * self.basis[0][:, use] + dy * self.basis[1][:, use])
        return np.concatenate(errors), np.concatenate(jacobians, axis=1)


def _best(floor: _Floor) -> tuple[Move, np.ndarray]:
    """The move and its rates."""
    best, rates = STATIC
    least = CLEARLY * floor.error(rates)
    for move, (direction, amounts, free) in MOVES.items():
        start = min((amount * direction for amount in amounts), key=floor.error)
        refined = floor.refine(start, free)
        if np.abs(refined).max() > np.abs(amounts).max():  # no camera of this world; some accident of texture
            refined = start
        if (error := floor.error(refined)) < least:
            best, rates, least = move, refined, error
    return best, rates


def _shrink(images: np.ndarray) -> np.ndarray:
    count, height, width = images.shape
    height, width = height // CELL, width // CELL
    cut = images[:, : height * CELL, : width * CELL]
    return cut.reshape(count, height, CELL, width, CELL).mean((2, 4))


STATIC: tuple[Move, np.ndarray] = ("static", np.zeros(4))

# Direction in the space of rates, amounts to try (pixels a step), rates to refine.
MOVES: dict[Move, tuple[np.ndarray, np.ndarray, list[int]]] = {
    "pan": (np.array([1, 0, 0, 0]), np.linspace(-5, 5, 26), [0]),
    "zoom": (np.array([0, 1, 0, 0]), np.linspace(-3, 3, 22), [1]),
    "orbit": (np.array([0, 0, 1, TILT]), np.linspace(-10, 10, 42), [0, 2, 3]),
}
