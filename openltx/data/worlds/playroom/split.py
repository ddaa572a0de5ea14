"""What is kept out of training: a share of the scenes, and some combinations of colour, shape and event entirely.

Both are decided by hashes, so that every seed and every later run agrees on them.
"""

import hashlib
from typing import Literal

from openltx.data.worlds.playroom.scene import ACTORS, PALETTE, Scene

HELDOUT_SHARE = 0.05
NUM_HELDOUT_COMBINATIONS = 14


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def all_combinations() -> list[tuple[str, str, str]]:
    """Every (colour, shape, event) that the main object can show."""
    return [(colour, shape, event) for event, shapes in ACTORS.items() for shape in shapes for colour in PALETTE]


HELDOUT_COMBINATIONS: tuple[tuple[str, str, str], ...] = tuple(
    sorted(all_combinations(), key=lambda c: _hash("playroom " + " ".join(c)))[:NUM_HELDOUT_COMBINATIONS]
)


def split_of(seed: int, index: int, scene: Scene) -> Literal["train", "heldout"]:
    """Where a scene belongs."""
    main = scene.objects[0]
    if (main.color, main.shape, scene.event) in HELDOUT_COMBINATIONS:
        return "heldout"
    return "heldout" if _hash(f"{seed}/{index}") % 1000 < 1000 * HELDOUT_SHARE else "train"
