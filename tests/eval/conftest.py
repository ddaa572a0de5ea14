"""A painted stage: videos of plain solids over a floor, with the detections that a perfect probe would give."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from openltx.data.worlds.playroom.scene import PALETTE, SHAPES
from openltx.eval.probe import Detection
from openltx.eval.tracking import Scene, assemble

SIZE = 128
Path2D = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class Solid:
    """A painted solid: its place (share of the picture) and half sizes in pixels at every time from 0 to 1."""

    colour: str
    shape: str
    place: Path2D
    half: Callable[[float], tuple[float, float]] = lambda _: (12.0, 12.0)


@dataclass(frozen=True)
class Painting:
    frames: np.ndarray
    detections: list[list[Detection]]

    @property
    def scene(self) -> Scene:
        return assemble(self.frames, self.detections)

    def reversed(self) -> "Painting":
        return Painting(self.frames[::-1].copy(), self.detections[::-1])

    def frozen(self) -> "Painting":
        return Painting(np.repeat(self.frames[:1], len(self.frames), axis=0), self.detections[:1] * len(self.frames))

    def until(self, count: int) -> "Painting":
        """The first frames, then the last of them held."""
        times = np.minimum(np.arange(len(self.frames)), count - 1)
        return Painting(self.frames[times], [self.detections[i] for i in times])


def paint(*solids: Solid, count: int = 25, pan: float = 0.0, zoom: float = 0.0) -> Painting:
    """A video; ``pan`` moves the whole picture by so many pixels, ``zoom`` scales it by exp(zoom), both in all."""
    frames, detections = [], []
    for s in np.linspace(0, 1, count):
        shift, scale = pan * s, np.exp(zoom * s)
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        x, y = (columns - 64) / scale + 64 - shift, (rows - 64) / scale + 64
        frame = (159 + 19 * np.tanh(3 * np.sin(x / 3) * np.sin(y / 3)))[..., None].repeat(3, axis=2)
        found = []
        for solid in solids:
            centre = np.array(solid.place(s)) * SIZE
            half = np.array(solid.half(s))
            inside = ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 < 1
            light = np.clip(0.95 - 0.35 * (y - centre[1]) / half[1], 0.5, 1.0)
            frame[inside] = (np.array(PALETTE[solid.colour]) * light[..., None])[inside]
            shapes = tuple(0.9 if name == solid.shape else 0.025 for name in SHAPES)
            seen = (centre + np.array([shift, 0]) - 64) * scale + 64
            found.append(Detection(x=seen[0], y=seen[1], radius=float(half.mean()) * scale, score=0.9, shapes=shapes))
        frames.append(frame.round().astype(np.uint8))
        detections.append(found)
    return Painting(np.stack(frames), detections)


@pytest.fixture
def stage() -> Callable[..., Painting]:
    return paint


@pytest.fixture
def solid() -> type[Solid]:
    return Solid
