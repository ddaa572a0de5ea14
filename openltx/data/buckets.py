"""Which examples make which batch: families of sizes with about as many tokens, epoch after epoch. (Paper section 2.5.)

Sizes (frames, height, width) whose token counts lie within a fifth of each other form a family; a batch mixes all sizes
of one family, and as many of their tokens are dropped as the larger ones have too many. So nothing is padded or packed.
Single frames are examples too, in families of their own.

The order is a pure function of (seed, step, micro), so that a run resumes at the exact example with no saved state.
Every epoch the shards are shuffled and dealt out to the ``streams`` (the micro-batches of a step): a process reads only
the shards of its own micro-batches, in order, through a window in which examples are shuffled; whichever process takes
a micro-batch, it is the same. What does not fill a batch at the end of an epoch is filled up with repetitions.
"""

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from openltx.data.latents import Entry

WINDOW = 8  # units of a stream that are shuffled together
UNITS_PER_STREAM = 4  # at least so many parts of shards each stream has to shuffle, if there are as many examples


class Pick(NamedTuple):
    """One example of a batch: the whole clip, or one of its stills."""

    example: int
    still: int | None


@dataclass(frozen=True)
class Family:
    """Sizes that are trained together: their (f, h, w), and the token count to which all are brought."""

    shapes: tuple[tuple[int, int, int], ...]
    tokens: int


class BatchPlan:
    """The batches of a run."""

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        tokens_per_batch: int,
        largest_drop: float,
        image_share: float,
        streams: int,
        seed: int,
    ) -> None:
        """``image_share``: of all tokens, those of stills; ``largest_drop``: share of a clip's tokens, see the head."""
        self.entries = entries
        self.tokens_per_batch = tokens_per_batch
        self.image_share = image_share
        self.streams = streams
        self.seed = seed
        counts = {entry.shape for entry in entries}
        if image_share:
            counts |= {(1, *entry.shape[1:]) for entry in entries if entry.stills}
        self.families = families_of(counts, largest_drop)
        self.family_of = {shape: family for family in self.families for shape in family.shapes}
        self.units = _units(entries, streams)
        self._epochs: dict[tuple[int, int], list[list[Pick]]] = {}
        self._starts: dict[int, list[int]] = defaultdict(lambda: [0])  # of each stream: first step of each epoch

    def batch(self, step: int, micro: int) -> list[Pick]:
        """The examples of a micro-batch, all of one family."""
        stream = micro % self.streams
        starts = self._starts[stream]
        while starts[-1] <= step:
            starts.append(starts[-1] + len(self._epoch(len(starts) - 1, stream)))
        epoch = bisect.bisect_right(starts, step) - 1
        return self._epoch(epoch, stream)[step - starts[epoch]]

    def batch_size(self, family: Family) -> int:
        """How many examples a batch of the family has."""
        return max(1, self.tokens_per_batch // family.tokens)

    def _epoch(self, epoch: int, stream: int) -> list[list[Pick]]:
        key = (epoch, stream)
        if key not in self._epochs:
            for old in [k for k in self._epochs if k[1] == stream]:
                del self._epochs[old]
            self._epochs[key] = self._make_epoch(epoch, stream)
        return self._epochs[key]

    def _make_epoch(self, epoch: int, stream: int) -> list[list[Pick]]:
        rng = np.random.default_rng([self.seed, epoch, stream])
        waiting: dict[Family, list[Pick]] = defaultdict(list)
        seen: dict[Family, list[Pick]] = defaultdict(list)
        batches = []
        for pick in self._in_order(epoch, stream, rng):
            entry = self.entries[pick.example]
            family = self.family_of[entry.shape if pick.still is None else (1, *entry.shape[1:])]
            waiting[family].append(pick)
            seen[family].append(pick)
            if len(waiting[family]) == self.batch_size(family):
                batches.append(waiting.pop(family))
        for family, rest in waiting.items():
            missing = self.batch_size(family) - len(rest)
            again = rng.choice(len(seen[family]), missing, replace=missing > len(seen[family]))
            batches.append([*rest, *(seen[family][i] for i in again)])
        return batches

    def _in_order(self, epoch: int, stream: int, rng: np.random.Generator) -> Iterator[Pick]:
        """The examples of a stream, shuffled within windows."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.units))  # the same for all streams
        mine = [self.units[i] for i in order[stream :: self.streams]]
        for first in range(0, len(mine), WINDOW):
            inside = [i for unit in mine[first : first + WINDOW] for i in unit]
            picks = [Pick(i, None) for i in inside] + list(self._stills(inside, rng))
            yield from (picks[i] for i in rng.permutation(len(picks)))

    def _stills(self, examples: Sequence[int], rng: np.random.Generator) -> Iterator[Pick]:
        """As many stills of these examples as make ``image_share`` of the tokens; a still may come more than once."""
        if not self.image_share:
            return
        sources = [i for i in examples if self.entries[i].stills]
        tokens = sum(_tokens(self.entries[i].shape) for i in examples)
        wanted = tokens * self.image_share / (1 - self.image_share)
        while sources and wanted > 0:
            for i in rng.permutation(sources):
                if wanted <= 0:
                    return
                yield Pick(int(i), int(rng.integers(self.entries[i].stills)))
                wanted -= _tokens((1, *self.entries[i].shape[1:]))


def families_of(shapes: set[tuple[int, int, int]], largest_drop: float) -> tuple[Family, ...]:
    """Sizes in families: from the smallest count on, all that a share of ``largest_drop`` brings down to it."""
    families: list[list[tuple[int, int, int]]] = []
    for are_images in (True, False):
        smallest = 0.0
        for shape in sorted((s for s in shapes if (s[0] == 1) == are_images), key=lambda s: (_tokens(s), s)):
            if smallest >= round((1 - largest_drop) * _tokens(shape), 6):
                families[-1].append(shape)
            else:
                families.append([shape])
                smallest = _tokens(shape)
    return tuple(Family(tuple(members), _tokens(members[0])) for members in families)


def _units(entries: Sequence[Entry], streams: int) -> list[list[int]]:
    """Runs of examples of one shard, at least ``UNITS_PER_STREAM`` for each stream where there are as many examples."""
    largest = max(1, len(entries) // (UNITS_PER_STREAM * streams))
    units: list[list[int]] = []
    for _, group in itertools.groupby(range(len(entries)), key=lambda i: entries[i].shard):
        members = list(group)
        parts = -(-len(members) // largest)
        units += [members[k * len(members) // parts : (k + 1) * len(members) // parts] for k in range(parts)]
    if len(units) < streams:  # fewer examples than streams: some come in several
        units = [units[i % len(units)] for i in range(streams)]
    return units


def _tokens(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]
