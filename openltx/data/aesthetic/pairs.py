"""Which two clips a person is asked about.

They must share one of their three labels, so that it is not the subject that decides (paper section 3). Among the pairs
that were not asked about, the one whose scores lie closest is taken: the answer tells most. Without a ranker yet, any.
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Bool, Float, Int

TRIED = 4000  # pairs drawn, of which the least certain is taken


def share_a_label(labels: Int[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n n"]:
    """Which clips have a label in common; none with itself."""
    common = np.zeros((len(labels), len(labels)), bool)
    for place in range(labels.shape[1]):
        for other in range(labels.shape[1]):
            common |= labels[:, place, None] == labels[None, :, other]
    np.fill_diagonal(common, False)
    return common


def next_pair(
    allowed: Bool[np.ndarray, "n n"],
    scores: Float[np.ndarray, "n"] | None,
    asked: Collection[frozenset[int]],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """A pair, left and right at random; None if all have been asked about."""
    first, second = np.nonzero(np.triu(allowed))
    left = np.array([frozenset(pair) not in asked for pair in zip(first.tolist(), second.tolist(), strict=True)], bool)
    first, second = first[left], second[left]
    if not len(first):
        return None
    drawn = rng.permutation(len(first))[:TRIED]
    if scores is not None:
        drawn = drawn[np.argsort(np.abs(scores[first[drawn]] - scores[second[drawn]]), kind="stable")]
    pair = [int(first[drawn[0]]), int(second[drawn[0]])]
    return (pair[0], pair[1]) if rng.random() < 0.5 else (pair[1], pair[0])
