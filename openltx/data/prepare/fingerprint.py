"""What a clip looks like in 320 bits: the same for its copies, however they are coded or scaled.

Of each of the five looked-at frames: whether each of the 64 lowest frequencies of a 32 x 32 grey copy is above their
median (a perceptual hash).
"""

import numpy as np
from jaxtyping import UInt8

from openltx.data.prepare.records import Measures
from openltx.data.prepare.stage import Look

SIDE, LOW = 32, 8


class Fingerprint:
    """Measures the hashes of the looked-at frames, 16 hexadecimal digits each."""

    name = "fingerprint"

    def measure(self, look: Look) -> Measures:
        return {"hashes": [f"{perceptual_hash(frame):016x}" for frame in look.keys]}

    def objection(self, measures: Measures) -> str | None:  # noqa: ARG002 (no clip is a duplicate by itself)
        return None


def perceptual_hash(frame: UInt8[np.ndarray, "_ _ 3"]) -> int:
    """64 bits of one picture."""
    import cv2

    grey = cv2.cvtColor(cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    low = cv2.dct(grey.astype(np.float32))[:LOW, :LOW].ravel()
    bits = low > np.median(low[1:])  # the first is the mean, which says nothing of the shapes
    return int("".join("1" if bit else "0" for bit in bits), 2)
