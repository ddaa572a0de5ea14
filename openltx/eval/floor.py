"""How the floor moves through the picture: what the camera does, seen where it matters for objects on the floor.

Between one frame and the next, the lower half of the picture (Playroom's floor, whatever the camera's pitch) is mapped
by an affine function of the place, fitted to the brightness (Lucas and Kanade 1981, coarse to fine, outliers weighed
down, solids left out). A pan is then a constant, a zoom a scale, an orbit a shear, and the motion of a solid relative
to the floor below it is what is left. On a floor without texture the fit stays at rest.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

LEVELS = (4, 2, 1)  # pixels are averaged over squares of this side, coarse to fine
ITERATIONS = 4
ROBUST = 0.03  # differences of brightness (of 1) beyond this count less and less
RIDGE = 2e-4  # pull towards no motion, a pixel
Affine = Float[np.ndarray, "2 3"]


def floor_motion(
    frames: UInt8[np.ndarray, "F H W 3"], solids: Bool[np.ndarray, "F H W"]
) -> Float[np.ndarray, "G 2 3"]:
    """From each frame to the next (G = F - 1), the map (x, y, 1) -> displacement in pixels of the floor."""
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    half = frames.shape[1] // 2
    maps = [np.zeros((2, 3))]
    for first, second, hidden in zip(grey[:-1], grey[1:], solids[:-1] | solids[1:], strict=True):
        maps.append(_fit(first[half:], second[half:], ~hidden[half:], top=half, start=maps[-1]))
    return np.stack(maps[1:]) if len(maps) > 1 else np.zeros((0, 2, 3))


def displacement(affine: Affine, x: float, y: float) -> Float[np.ndarray, "2"]:
    """Where the floor at (x, y) goes until the next frame, in pixels."""
    return affine @ np.array([x, y, 1.0])


def growth(affine: Affine) -> float:
    """The logarithm of the factor by which the floor grows until the next frame."""
    return float(0.5 * (affine[0, 0] + affine[1, 1]))


def _fit(first: np.ndarray, second: np.ndarray, seen: np.ndarray, *, top: int, start: np.ndarray) -> np.ndarray:
    """The affine displacement in pixels, coordinates with ``top`` rows above the given part."""
    from scipy.ndimage import map_coordinates

    height, width = first.shape
    centre = np.array([width / 2, top + height / 2])
    unit = width / 2
    # In centred coordinates (u, v, 1), u and v about -1..1, so that the ridge means the same for all six numbers.
    linear = start[:, :2] * unit
    params = np.concatenate([linear, (start @ [*centre, 1.0])[:, None]], axis=1)
    for level in LEVELS:
        small_first, small_second = _shrink(first, level), _shrink(second, level)
        weight_seen = _shrink(seen.astype(np.float32), level) > 0.99
        dy, dx = np.gradient(small_second)
        rows, columns = np.mgrid[: small_first.shape[0], : small_first.shape[1]]
        u = ((columns + 0.5) * level - centre[0]) / unit
        v = ((rows + 0.5) * level + top - centre[1]) / unit
        basis = np.stack([u, v, np.ones_like(u)])
        for _ in range(ITERATIONS):
            shift = np.tensordot(params, basis, 1) / level
            at = np.stack([rows + shift[1], columns + shift[0]])
            inside = (at >= 0).all(0) & (at[0] <= rows.max()) & (at[1] <= columns.max()) & weight_seen
            if inside.sum() < 50:
                return np.zeros((2, 3))
            gx, gy, warped = (map_coordinates(a, at[:, inside], order=1) for a in (dx, dy, small_second))
            error = warped - small_first[inside]
            weight = 1 / (1 + (error / ROBUST) ** 2)
            jacobian = np.concatenate([gx * basis[:, inside], gy * basis[:, inside]]) / level
            normal = (jacobian * weight) @ jacobian.T + RIDGE * len(error) / level**2 * 0.01 * np.eye(6)
            params = params - np.linalg.solve(normal, (jacobian * weight) @ error).reshape(2, 3)
    linear = params[:, :2] / unit
    return np.concatenate([linear, (params[:, 2] - linear @ centre)[:, None]], axis=1)


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = (side // factor * factor for side in image.shape)
    return image[:height, :width].reshape(height // factor, factor, width // factor, factor).mean((1, 3))
