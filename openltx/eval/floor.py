"""How the camera moves, seen on the floor, so that the motion of solids can be told from it.

Playroom's cameras move steadily through a clip. Their effect on the lower half of the picture, which is floor whatever
the camera's pitch, is fitted to the brightness of all neighbouring frames together (Lucas and Kanade 1981: coarse to
fine, outliers such as moving shadows weighed down, solids left out) with four steady rates: a shift (pan), a scale
(zoom), and a shear with a tilt about the middle of the stage (orbit). A floor without texture seems to stand still.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

LEVELS = (8, 4, 2)  # pixels are averaged over squares of this side, coarse to fine
ITERATIONS = 4
RIDGE = 3e-8  # pull towards rest
STAGE_ROW = 0.82  # where the floor at the middle of the stage appears, as a share of the picture's height


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """The floor's motion from each frame to the next, in pixels; ``centre`` (x, y) and ``stage_y`` place the basis."""

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


def camera_motion(
    frames: UInt8[np.ndarray, "F H W 3"], solids: Bool[np.ndarray, "F H W"], step: int = 3
) -> CameraMotion:
    """Fit the rates to frames ``step`` apart, leaving out the pixels of ``solids``."""
    grey = (frames[::step].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)) / 255
    hidden = solids[::step]
    height, width = frames.shape[1:3]
    top = height // 2
    rates = np.zeros(4)  # pan, and zoom, shear, tilt times half the width, so that all are pixels a step
    if len(grey) > 1:
        for level in LEVELS:
            images = _shrink(grey[:, top:], level)
            seen = _shrink((~(hidden[:-1] | hidden[1:]))[:, top:].astype(np.float32), level) > 0.99
            rates = _refine(images, seen, _basis(images.shape[1:], level, top, height, width), rates, level)
    pan, zoom, shear, tilt = rates / step / np.array([1, width / 2, width / 2, width / 2])
    return CameraMotion(
        pan=pan, zoom=zoom, shear=shear, tilt=tilt, centre=(width / 2, height / 2), stage_y=STAGE_ROW * height
    )


def _basis(shape: tuple[int, ...], level: int, top: int, height: int, width: int) -> np.ndarray:
    """(2 4 h w): the displacement (x, y) in pixels that each rate causes at each cell."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    u = ((columns + 0.5) * level - width / 2) / (width / 2)
    v = ((rows + 0.5) * level + top - height / 2) / (width / 2)
    w = ((rows + 0.5) * level + top - STAGE_ROW * height) / (width / 2)
    zero, one = np.zeros_like(u), np.ones_like(u)
    return np.stack([np.stack([one, u, w, zero]), np.stack([zero, v, zero, u])])


def _refine(images: np.ndarray, seen: np.ndarray, basis: np.ndarray, rates: np.ndarray, level: int) -> np.ndarray:
    """Gauss-Newton steps on one level."""
    from scipy.ndimage import map_coordinates

    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    slopes = np.stack(np.gradient(images, axis=(2, 1)))  # (x and y, F, h, w)
    for _ in range(ITERATIONS):
        shift_x, shift_y = np.tensordot(rates, basis, (0, 1)) / level
        at = np.stack([rows + shift_y, columns + shift_x])
        inside = (at >= 0).all(0) & (at[0] <= rows.max()) & (at[1] <= columns.max())
        normal, right = np.zeros((4, 4)), np.zeros(4)
        errors, jacobians = [], []
        for first, second, dx, dy, visible in zip(images, images[1:], slopes[0, 1:], slopes[1, 1:], seen, strict=False):
            use = inside & visible
            gx, gy, warped = (map_coordinates(a, at[:, use], order=1) for a in (dx, dy, second))
            errors.append(warped - first[use])
            jacobians.append((gx * basis[0][:, use] + gy * basis[1][:, use]) / level)
        error, jacobian = np.concatenate(errors), np.concatenate(jacobians, axis=1)
        if len(error) < 200:
            return rates
        scale = 3 * np.median(np.abs(error)) + 0.004
        weight = 1 / (1 + (error / scale) ** 2) ** 2
        normal = (jacobian * weight) @ jacobian.T + RIDGE * len(error) * np.eye(4)
        right = (jacobian * weight) @ error + RIDGE * len(error) * rates
        rates = rates - np.linalg.solve(normal, right)
    return rates


def _shrink(images: np.ndarray, factor: int) -> np.ndarray:
    count, height, width = images.shape
    height, width = height // factor, width // factor
    cut = images[:, : height * factor, : width * factor]
    return cut.reshape(count, height, factor, width, factor).mean((2, 4))
