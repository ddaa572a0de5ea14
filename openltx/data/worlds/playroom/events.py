"""Whether the event that a scene promises is what the simulation shows, and its countable facts."""

from dataclasses import dataclass

import numpy as np

from openltx.data.worlds.playroom.camera import Size, sides
from openltx.data.worlds.playroom.launch import HEADINGS
from openltx.data.worlds.playroom.physics import Motion
from openltx.data.worlds.playroom.scene import Scene
from openltx.data.worlds.playroom.solids import Solid

Track = list[tuple[float, float, float] | None]

BOUNCE_RISE = 0.04  # a bounce is a rise by this much, in scene units, after touching the floor
MAX_BOUNCES = 4
MIN_IN_VIEW = 0.85  # share of the frames with the main object's centre in the picture


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a caption may count on: rises after touching the floor, and the frame of the first contact, if any."""

    bounces: int
    first_contact_frame: int | None


def observe(
    scene: Scene, solids: tuple[Solid, ...], motion: Motion, tracks: list[Track], size: Size = 128
) -> Facts | None:
    """The facts of a motion, or None if the scene's event did not happen well in view."""
    short = min(sides(size))
    if any(track[0] is None for track in tracks):
        return None
    if sum(p is not None for p in tracks[0]) < MIN_IN_VIEW * scene.frames:
        return None
    if scene.event != "collide" and (motion.meeting.any() or _hidden(tracks)):
        return None
    facts = Facts(
        bounces=count_bounces(motion.positions[:, 0, 2], motion.floor[:, 0]),
        first_contact_frame=_first(motion.meeting if scene.event == "collide" else motion.floor[:, 0])
        if scene.event in ("collide", "drop", "bounce")
        else None,
    )
    return facts if _happened(scene, solids[0], motion, tracks, facts, short) else None


def count_bounces(height: np.ndarray, touching: np.ndarray) -> int:
    """How often an object rises by ``BOUNCE_RISE`` between one contact and the next (or the end)."""
    if not touching.any():
        return 0
    starts = np.flatnonzero(np.diff(touching.astype(int), prepend=0) == 1)
    ends = [*starts[1:], len(height)]
    rest = height[touching].min()
    return sum(bool(height[a:b].max() > rest + BOUNCE_RISE) for a, b in zip(starts, ends, strict=True))


def _hidden(tracks: list[Track]) -> bool:
    """Whether a bystander begins mostly behind (or before) the main object."""
    first = [track[0] for track in tracks]
    if len(first) < 2 or first[0] is None or first[1] is None:
        return False
    apart = np.hypot(first[0][0] - first[1][0], first[0][1] - first[1][1])
    return bool(apart < 0.85 * (first[0][2] + first[1][2]))


def _happened(scene: Scene, solid: Solid, motion: Motion, tracks: list[Track], facts: Facts, size: int) -> bool:
    moved = motion.positions[-1] - motion.positions[0]
    seen = [p for p in tracks[0] if p is not None]
    contact = facts.first_contact_frame
    match scene.event:
        case "bounce":
            return 1 <= facts.bounces <= MAX_BOUNCES
        case "drop":
            settled = solid.shape != "ball" or facts.bounces == 0
            return contact is not None and contact < 0.75 * scene.frames and settled
        case "roll" | "slide":
            return _travelled(scene, seen, size) and (
                scene.event == "roll" or bool((motion.rotations[:, 0, 2, 2] > 0.97).all())
            )
        case "topple":
            upright = motion.rotations[:, 0, 2, 2]
            right_way = moved[0, 0] * HEADINGS[scene.direction or "left"][0] > 0.5 * solid.half
            return bool((abs(upright[int(0.9 * scene.frames) :]) < 0.4).all() and right_way)
        case "collide":
            if contact is None or not 4 <= contact <= 0.65 * scene.frames:
                return False
            heading = HEADINGS[scene.direction or "left"][0]
            before = tracks[0][contact]
            approached = before is not None and (before[0] - seen[0][0]) * heading > 0.12 * size
            return approached and bool(moved[1, 0] * heading > 0.1)
        case "swing":
            xs = [p[0] for p in seen]
            return max(xs) - min(xs) > 0.3 * size
        case "still":
            return float(np.abs(motion.positions - motion.positions[0]).max()) < 0.02


def _travelled(scene: Scene, seen: list[tuple[float, float, float]], size: int) -> bool:
    if scene.direction in ("left", "right"):
        return (seen[-1][0] - seen[0][0]) * HEADINGS[scene.direction][0] > 0.3 * size
    growth = seen[-1][2] / seen[0][2]
    return growth > 1.3 if scene.direction == "toward" else growth < 0.77


def _first(happened: np.ndarray) -> int | None:
    return int(np.argmax(happened)) if happened.any() else None
