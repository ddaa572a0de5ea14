"""Two passes: a small video first, its latents enlarged, then refined at full size. (Released since 0.9.7.)"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TwoPass:
    """How a release makes a video in two passes.

    downscale   the first pass is smaller by this factor in width and height, rounded down to the 32-pixel grid
    first       settings of the first pass: fields of ``Sampling``
    second      settings of the second pass, at twice the size of the first
    """

    downscale: float = 2 / 3
    first: Mapping[str, Any] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)
