"""Near-duplicates over a whole set: of clips that look alike, the largest and sharpest is kept.

Each clip is compared with every kept one, best clips first, 320 bits at a time: a set of 100,000 takes minutes, not
hours, and nothing is missed as it would be by hashing into bins. Pieces of one shot are never each other's duplicates.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64

from openltx.data.prepare.records import Record
from openltx.data.prepare.stage import KEYS


def near_duplicates(records: Sequence[Record], max_distance: float) -> dict[str, tuple[str, float]]:
    """For each clip that shows what a better one shows: that one's id, and the share of bits in which they differ."""
    ranked = sorted(records, key=_quality)
    prints = np.array([fingerprint_of(record) for record in ranked], np.uint64).reshape(-1, KEYS)
    shots = np.array([f"{record.sha256}/{record.shot}" for record in ranked])
    kept: list[int] = []
    found: dict[str, tuple[str, float]] = {}
    for index, record in enumerate(ranked):
        others = np.array([other for other in kept if shots[other] != shots[index]], np.intp)
        if len(others):
            distances = distance(prints[others], prints[index])
            nearest = int(np.argmin(distances))
            if distances[nearest] <= max_distance:
                found[record.id] = (ranked[others[nearest]].id, round(float(distances[nearest]), 4))
                continue
        kept.append(index)
    return found


def fingerprint_of(record: Record) -> list[int]:
    """The hashes of a record, as many as every clip has: very short clips repeat their last one."""
    hashes = [int(text, 16) for text in record.measures["fingerprint"]["hashes"]]
    return hashes + hashes[-1:] * (KEYS - len(hashes))


def distance(many: UInt64[np.ndarray, "n k"], one: UInt64[np.ndarray, "k"]) -> np.ndarray:
    """The share of bits that differ, for each of many."""
    return np.bitwise_count(many ^ one).sum(axis=1) / (64 * many.shape[1])


def _quality(record: Record) -> tuple[float, float, str]:
    """Large pictures first, then sharp ones, then in the order of their names."""
    area = record.height * record.width * record.measures["crop"]["left_over"]
    return (-area, record.measures["sharpness"]["blur"], record.id)
