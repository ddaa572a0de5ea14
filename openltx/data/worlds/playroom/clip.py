"""One clip from (seed, index): the scene, a launch that makes its event happen, the pictures, the truth.

Every clip has random generators of its own, so that a clip does not depend on which others are made, or in what order.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from openltx.data.worlds.playroom import camera, captions, events, physics
from openltx.data.worlds.playroom.launch import FPS, sample_launch
from openltx.data.worlds.playroom.render import Renderer
from openltx.data.worlds.playroom.scene import Scene, sample_scene
from openltx.data.worlds.playroom.solids import Solid, solid_of
from openltx.data.worlds.playroom.split import split_of

MAX_SCENES, MAX_LAUNCHES = 20, 12


@dataclass(frozen=True, kw_only=True)
class Performance:
    """A scene whose event was seen to happen: what to draw, and what is true of it."""

    scene: Scene
    solids: tuple[Solid, ...]
    motion: physics.Motion
    views: list[camera.View]
    tracks: list[events.Track]
    facts: events.Facts


def perform(seed: int, index: int, size: camera.Size = 128, frames: int | None = None) -> Performance:
    """Simulate clip ``index`` of the world with this seed, for ``frames`` frames if the scene is not to choose."""
    for attempt in range(MAX_SCENES):
        scene = sample_scene(np.random.default_rng([seed, index, attempt]))
        scene = scene if frames is None else replace(scene, frames=frames)
        solids = tuple(solid_of(o, slender=scene.event == "topple" and o.role == "main") for o in scene.objects)
        views = camera.path(scene)
        for launch_attempt in range(MAX_LAUNCHES):
            rng = np.random.default_rng([seed, index, attempt, 1 + launch_attempt])
            motion = physics.simulate(solids, sample_launch(scene, solids, rng), scene.frames)
            tracks = track(motion, solids, views, size)
            facts = events.observe(scene, solids, motion, tracks, size)
            if facts is not None:
                return Performance(scene=scene, solids=solids, motion=motion, views=views, tracks=tracks, facts=facts)
    raise AssertionError(f"no scene of clip {index} (seed {seed}) came about in {MAX_SCENES} tries")


def track(
    motion: physics.Motion, solids: tuple[Solid, ...], views: list[camera.View], size: camera.Size
) -> list[events.Track]:
    """Per object and frame: (x, y, radius) in pixels, None while the centre is outside the picture."""
    tracks = []
    width, height = camera.sides(size)
    for index, solid in enumerate(solids):
        points = [view.project(motion.positions[f, index], solid.track_radius, size) for f, view in enumerate(views)]
        tracks.append([p if 0 <= p[0] < width and 0 <= p[1] < height else None for p in points])
    return tracks


def truth_of(performance: Performance, seed: int, index: int) -> dict[str, Any]:
    """The truth as it stands in a manifest."""
    scene, facts = performance.scene, performance.facts
    truth: dict[str, Any] = {
        "scene": index,
        "objects": [
            {"shape": o.shape, "color": o.color, "size": o.size, "material": o.material, "role": o.role}
            for o in scene.objects
        ],
        "event": scene.event,
        "direction": scene.direction,
        "floor": scene.floor,
        "backdrop": scene.backdrop,
        "camera": scene.camera,
    }
    if facts.first_contact_frame is not None:
        truth["first_contact_frame"] = facts.first_contact_frame
    if scene.event == "bounce":
        truth["bounces"] = facts.bounces
    rng = caption_rng(seed, index)
    truth["caption_short"] = captions.short(truth, rng)
    truth["caption_long"] = captions.long(truth, rng)
    truth["tracks"] = [[p and [round(v, 1) for v in p] for p in track] for track in performance.tracks]
    return truth


def caption_rng(seed: int, index: int) -> np.random.Generator:
    """The generator of a clip's stored captions."""
    return np.random.default_rng([seed, index, 10_000])


def draw(performance: Performance, renderer: Renderer) -> UInt8[np.ndarray, "F H W 3"]:
    """The clip's frames."""
    return renderer.render(performance.scene, performance.solids, performance.motion, performance.views)


__all__ = ["FPS", "Performance", "caption_rng", "draw", "perform", "split_of", "track", "truth_of"]
