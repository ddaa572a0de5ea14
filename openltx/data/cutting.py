"""How footage is cut, decided before a frame is: pure functions of the shots' places, the settings and hashes."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from openltx.data.manifest import Split
from openltx.data.shots import Shot
from openltx.errors import DataError
from openltx.geometry import LTX_COMPRESSION


@runtime_checkable  # for the type checks of the tests
class Cutting(Protocol):
    """Settings that say how shots become pieces: see ``FootageSettings``."""

    @property
    def frames(self) -> int: ...
    @property
    def min_frames(self) -> int: ...
    @property
    def fps(self) -> float | None: ...
    @property
    def skip_start(self) -> float: ...
    @property
    def skip_end(self) -> float: ...


@runtime_checkable  # for the type checks of the tests
class Splitting(Protocol):
    """Settings that say which shots are held out."""

    @property
    def heldout(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class FootageSettings:
    """How a folder of footage is made; ``DataError`` for numbers that cannot be.

    Clips have ``height`` x ``width`` pixels, at most ``frames`` and at least ``min_frames`` frames, at the source's
    frame rate or at ``fps`` if that is lower. ``heldout`` is the share of shots kept from training; ``skip_start`` and
    ``skip_end`` are seconds of every source that are left out.
    """

    height: int
    width: int
    frames: int = 49
    min_frames: int = 25
    fps: float | None = None
    heldout: float = 0.1
    seed: int = 0
    skip_start: float = 0.0
    skip_end: float = 0.0

    def __post_init__(self) -> None:
        step = LTX_COMPRESSION.space
        if min(self.height, self.width) < step or self.height % step or self.width % step:
            near = "x".join(str(max(side // step, 1) * step) for side in (self.width, self.height))
            raise DataError(
                f"Clips of {self.width}x{self.height} pixels do not fit the model: both sides must be multiples of "
                f"{step}. Near it: {near}."
            )
        if not 1 <= self.min_frames <= self.frames:
            raise DataError(
                f"Clips of {self.min_frames} to {self.frames} frames cannot be: the lower number must be at "
                f"least 1 and at most the upper one."
            )
        if not 0 <= self.heldout < 1:
            raise DataError(f"The share of held-out shots must be from 0 to below 1; asked for {self.heldout}.")
        if (self.fps is not None and self.fps <= 0) or min(self.skip_start, self.skip_end) < 0:
            raise DataError(
                f"Frames a second must be above 0 and skipped seconds not below; asked for fps {self.fps}, "
                f"{self.skip_start} s at the start and {self.skip_end} s at the end."
            )


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One clip to be: the frames ``indices`` of its source, all of shot number ``shot``."""

    shot: int
    indices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The pieces of one source, in order, and what was left out."""

    pieces: list[Piece]
    shots: int
    """Shots between the skipped start and end."""
    short_shots: int
    """Those of them with fewer frames than a clip must have."""
    rest_frames: int
    """Frames at the ends of other shots, too few for one more clip."""


def plan_pieces(
    shots: Sequence[Shot],
    fps: float,
    settings: Cutting,
    times: Sequence[float] | None = None,
    per_shot: int | None = None,
) -> Plan:
    """Cut each shot, from its first frame on, into pieces of ``settings.frames`` frames and a shorter last one.

    No more than the first ``per_shot`` of them are kept.

    Numbers of shots are those of the whole source, whatever is skipped. ``times`` are the seconds at which frames
    appear, for a source without a constant rate: its pieces show what is on show at every tick of ``fps``.
    """
    total = shots[-1].first + shots[-1].frames if shots else 0
    start, stop = round(settings.skip_start * fps), total - round(settings.skip_end * fps)
    pieces: list[Piece] = []
    inside = short = rest = 0
    for number, shot in enumerate(shots):
        first, end = max(shot.first, start), min(shot.first + shot.frames, stop)
        if first >= end:
            continue
        inside += 1
        kept = list(
            _thinned(first, end, fps, settings.fps) if times is None else _ticked(first, end, times, fps, settings)
        )
        if len(kept) < settings.min_frames:
            short += 1
            continue
        parts = [tuple(kept[i : i + settings.frames]) for i in range(0, len(kept), settings.frames)]
        if len(parts[-1]) < settings.min_frames:
            rest += len(parts.pop())
        rest += sum(map(len, parts[per_shot:])) if per_shot is not None else 0
        parts = parts[:per_shot]
        pieces += [Piece(shot=number, indices=part) for part in parts]
    return Plan(pieces=pieces, shots=inside, short_shots=short, rest_frames=rest)


def clip_fps(source_fps: float, settings: Cutting) -> float:
    """Frames a second of the clips of a source: frames are left out, never repeated."""
    return source_fps if settings.fps is None else min(settings.fps, source_fps)


def split_of_shot(sha256: str, shot: int, settings: Splitting) -> Split:
    """Where a shot belongs: decided by content, number and seed alone, so that other files never move it."""
    text = f"{settings.seed}/{sha256}/{shot}"
    fraction = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    return "heldout" if fraction < settings.heldout else "train"


def _thinned(first: int, end: int, fps: float, wanted: float | None) -> Iterator[int]:
    """The frames from ``first`` to before ``end`` that are on show at every tick of the wanted rate."""
    step = 1.0 if wanted is None else max(fps / wanted, 1.0)
    tick = 0
    while (index := first + int(tick * step + 1e-3)) < end:
        yield index
        tick += 1


def _ticked(first: int, end: int, times: Sequence[float], fps: float, settings: Cutting) -> Iterator[int]:
    """The frames on show at every tick, counted from the time of the first; some may come twice."""
    rate, tick = clip_fps(fps, settings), 0
    last = times[end] if end < len(times) else times[end - 1] + 1 / fps
    while (now := times[first] + tick / rate + 1e-3 / rate) < last:
        yield min(bisect_right(times, now, first, end), end) - 1
        tick += 1
