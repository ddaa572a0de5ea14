"""The sizes and lengths in which Playroom is filmed. (Paper section 2.5: long clips small, short clips large.)

The camera's angle is that of the shorter side: a wider or taller picture shows more, not a distorted stage. A clip's
format is drawn from its seed and index alone, apart from the scene's own draws.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from openltx.errors import DataError
from openltx.geometry import VideoShape


class Format(NamedTuple):
    """Pixels and frames of a clip; ``frames`` None leaves the length to the scene (25 to 49)."""

    width: int
    height: int
    frames: int | None

    def __str__(self) -> str:
        return f"{self.width}x{self.height}" + ("" if self.frames is None else f"x{self.frames}")


CLASSIC = (Format(128, 128, None),)
MIXED = tuple(  # 96 to 120 tokens, and 176 to 216: two families of batches
    Format(width, height, frames)
    for width, height, lengths in (
        (96, 96, (89, 97)),
        (128, 96, (65, 73)),
        (96, 160, (49, 57)),
        (160, 96, (49, 57)),
        (128, 128, (41, 49)),
        (160, 128, (33, 41)),
        (192, 128, (25, 33)),
        (128, 128, (81, 89, 97)),
        (192, 128, (57, 65)),
        (96, 160, (89, 97)),
    )
    for frames in lengths
)
UNSEEN = (  # with these a model is judged that was trained on MIXED
    Format(96, 128, 65), Format(128, 160, 41), Format(192, 96, 41), Format(128, 192, 33), Format(160, 160, 25),
    Format(128, 128, 65), Format(160, 128, 57),
)  # fmt: skip
FORMATS: Mapping[str, tuple[Format, ...]] = {"classic": CLASSIC, "mixed": MIXED, "unseen": UNSEEN}


def parse_formats(names: list[str]) -> tuple[Format, ...]:
    """Named sets and WIDTHxHEIGHTxFRAMES, in order; raises ``DataError`` for anything else."""
    found: list[Format] = []
    for name in names:
        found += FORMATS[name] if name in FORMATS else [_parse(name)]
    return tuple(found)


def format_of(formats: tuple[Format, ...], seed: int, index: int) -> Format:
    """The format of a clip."""
    if len(formats) == 1:
        return formats[0]
    return formats[int(np.random.default_rng([seed, index, 20_000]).integers(len(formats)))]


def _parse(name: str) -> Format:
    parts = name.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise DataError(
            f'"{name}" is no format: write WIDTHxHEIGHTxFRAMES, for example 192x128x33, or {", ".join(FORMATS)}.'
        )
    width, height, frames = map(int, parts)
    if frames < 17 or not VideoShape(frames=frames, height=height, width=width, fps=1.0).is_on_grid():
        raise DataError(
            f"The format {name} is not possible: sides are multiples of 32, and frames are 8k + 1, at least 17."
        )
    return Format(width, height, frames)
