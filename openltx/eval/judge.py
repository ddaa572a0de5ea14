"""Does a video show what its caption says? Colour, shape and motion of the solids that the caption names.

Motions are told apart by what a track does relative to the floor, with lengths in shares of the picture's width:

    toward, away   the solid grows or shrinks
    collide        a second solid is set in motion too
    swing          it goes one way and comes back, without touching down
    drop, bounce   it comes down; a bounce goes up again
    topple         it was upright and ends lying
    left, right    it ends far from where it began (rolls and slides are not told apart: the shape decides that)
    still          none of these
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from openltx.data.worlds.playroom.captions import SHAPE_WORDS
from openltx.eval.tracking import Scene, Track

Motion = Literal["left", "right", "toward", "away", "drop", "bounce", "topple", "swing", "collide", "still", "unseen"]

GROWN, SHRUNK = 0.28, -0.20  # logarithms of the factor of size
NEARER, FARTHER = 0.06, -0.05  # how far the lowest point goes down or up the picture with it
PUSHED = 0.07  # how far the second solid of a collision moves
SWUNG = (0.20, 0.06)  # how far a swing goes one way, and at least back
SWUNG_WIDE, ARC = 0.45, (0.04, 0.3)  # how far half a swing goes, and how far it dips and rises on the way
FALLEN = 0.12  # how far the lowest point comes down
REBOUND, TUMBLED = 0.04, 0.15  # how far a ball goes up again, and what does not roll may by tumbling
UPRIGHT, LYING = 0.56, 0.40  # of `Segment.upright`
TRAVELLED = 0.14


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether each attribute is as the caption says, and what was seen instead."""

    colour: bool
    shape: bool
    motion: bool
    seen: str

    @property
    def all_correct(self) -> bool:
        """Whether nothing is wrong."""
        return self.colour and self.shape and self.motion


def judge(scene: Scene, truth: dict[str, Any], caption: str, width: int) -> Verdict:
    """Compare what was seen in a video ``width`` pixels wide with the truth behind its caption."""
    named = named_objects(truth, caption)
    assigned = assign(scene.tracks, [item["color"] for item in named])
    pairs = list(zip(named, assigned, strict=True))
    motion = motion_of(scene, assigned[0], width)
    seen = ", ".join("nothing" if track is None else f"{track.colour} {track.shape}" for track in assigned)
    return Verdict(
        colour=all(track is not None and track.colour == item["color"] for item, track in pairs),
        shape=all(track is not None and track.shape == item["shape"] for item, track in pairs),
        motion=motion == expected_motion(truth),
        seen=f"{seen}: {motion}",
    )


def named_objects(truth: dict[str, Any], caption: str) -> list[dict[str, Any]]:
    """The main object, and those others that the caption speaks of."""
    main, *others = truth["objects"]
    return [main, *(item for item in others if is_named(item, caption))]


def is_named(item: dict[str, Any], caption: str) -> bool:
    """Whether a caption speaks of this colour of this shape."""
    words = "|".join(SHAPE_WORDS[item["shape"]])
    return re.search(rf"\b{item['color']}\b( \w+){{0,2}} ({words})\b", caption, re.IGNORECASE) is not None


def expected_motion(truth: dict[str, Any]) -> str:
    """The motion that a truth stands for: the direction of rolls and slides, else the event."""
    return truth["direction"] if truth["event"] in ("roll", "slide") else truth["event"]


def assign(tracks: tuple[Track, ...], colours: list[str]) -> list[Track | None]:
    """A track for each asked colour: one of that colour, else one that no other asked for, the one seen most first."""
    left = list(tracks)
    chosen: list[Track | None] = []
    for colour in colours:
        track = next((t for t in left if t.colour == colour), None)
        chosen.append(track)
        if track is not None:
            left.remove(track)
    for i, track in enumerate(chosen):
        if track is None and left:
            chosen[i] = left.pop(0)
    return chosen


def motion_of(scene: Scene, main: Track | None, width: int) -> Motion:
    """What the main solid does."""
    if main is None:
        return "unseen"
    x, bottom = smooth(main.path[:, 0] / width), smooth(main.bottom / width)
    growth = ends(smooth(main.growth))
    there, back = sweeps(x)
    others = [smooth(track.path[:, 0] / width) for track in scene.tracks if track is not main]
    if growth > GROWN and ends(bottom) > NEARER:
        return "toward"
    if growth < SHRUNK and ends(bottom) < FARTHER:
        return "away"
    if any(abs(ends(other)) > PUSHED for other in others):
        return "collide"
    dip, rise = ends(bottom, highest=True), rebound(bottom)
    if there > SWUNG[0] and (
        back > SWUNG[1] or (there > SWUNG_WIDE and ARC[0] < min(dip, rise) <= max(dip, rise) < ARC[1])
    ):
        return "swing"
    if dip > FALLEN:
        return "bounce" if rise > (REBOUND if main.shape == "ball" else TUMBLED) else "drop"
    if main.shape != "ball" and main.upright[:4].mean() > UPRIGHT and main.upright[-4:].mean() < LYING:
        return "topple"
    if abs(ends(x)) > TRAVELLED:
        return "right" if ends(x) > 0 else "left"
    return "still"


def smooth(values: np.ndarray) -> np.ndarray:
    """Medians of three neighbours: single outliers vanish, edges stay."""
    if len(values) < 3:
        return values
    return np.concatenate(
        [values[:1], np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0), values[-1:]]
    )


def ends(values: np.ndarray, *, highest: bool = False) -> float:
    """From the first to the last value (or to the highest one)."""
    return float((values.max() if highest else values[-3:].mean()) - values[:3].mean())


def sweeps(x: np.ndarray) -> tuple[float, float]:
    """The longest way to one side and the longest way to the other, the longer first."""
    right = float((x - np.minimum.accumulate(x)).max())
    left = float((np.maximum.accumulate(x) - x).max())
    return max(right, left), min(right, left)


def rebound(bottom: np.ndarray) -> float:
    """How far a falling solid's lowest point goes up again after its first touch-down (rows grow downwards)."""
    return float((np.maximum.accumulate(bottom) - bottom).max())
