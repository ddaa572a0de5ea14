"""Solids through time: detections linked into tracks, each with its colour, shape, and path relative to the floor.

Lengths are in pixels of the picture. ``path`` has the camera's share taken out: its first point is where the solid is
seen in the first frame of the track, and every further step is the solid's minus that of the floor below it.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from openltx.data.worlds.playroom.scene import SHAPES
from openltx.eval.floor import CameraMotion, camera_motion
from openltx.eval.probe import Detection, Probe, detect
from openltx.eval.segment import Segment, colour_name, core_colour, disc, segment, to_lab

REACH = 1.2  # a solid is looked for within this many radii (and six pixels) of where it should be
COLOUR_COST = 60.0  # a CIELAB difference that weighs as much as a radius of distance
PATIENCE = 6  # frames that a solid may be missed before its track ends
MIN_SHARE = 0.3  # of the frames that a track must cover to count


@dataclass(frozen=True, kw_only=True)
class Track:
    """One solid. Arrays have one row a frame in which it was seen: ``times`` are those frames."""

    times: tuple[int, ...]
    colour: str
    shape: str
    colour_share: float
    path: Float[np.ndarray, "n 2"]
    bottom: Float[np.ndarray, " n"]
    growth: Float[np.ndarray, " n"]
    upright: Float[np.ndarray, " n"]
    radius: float
    score: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What was seen in a video: its solids, from the one seen most to the one seen least, and its camera."""

    tracks: tuple[Track, ...]
    camera: CameraMotion
    frames: int


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One detection with what its pixels say."""

    time: int
    found: Detection
    colour: Float[np.ndarray, "3"]
    pixels: Segment


def observe(probe: Probe, frames: UInt8[np.ndarray, "F H W 3"]) -> Scene:
    """Find, link and measure everything in a video."""
    return assemble(frames, detect(probe, frames))


def assemble(frames: UInt8[np.ndarray, "F H W 3"], detections: list[list[Detection]]) -> Scene:
    """The scene that the given detections of each frame make."""
    colours = to_lab(frames)
    camera = camera_motion(frames, _cover(frames.shape, detections))
    chains: list[list[Sighting]] = []
    for time, found in enumerate(detections):
        sightings = [s for d in found if (s := _look(time, colours[time], d)) is not None]
        _link(chains, sightings)
    tracks = [_track(chain, camera) for chain in chains if len(chain) >= max(2, MIN_SHARE * len(frames))]
    tracks.sort(key=lambda track: -len(track.times) * track.score)
    return Scene(tracks=tuple(tracks), camera=camera, frames=len(frames))


def _look(time: int, frame: np.ndarray, found: Detection) -> Sighting | None:
    colour, pixels = core_colour(frame, found), segment(frame, found)
    if colour is None or pixels is None:
        return None
    return Sighting(time=time, found=found, colour=colour, pixels=pixels)


def _cover(shape: tuple[int, ...], detections: list[list[Detection]]) -> Bool[np.ndarray, "F H W"]:
    """The pixels of solids with some margin, for the camera's estimate to leave out."""
    cover = np.zeros(shape[:3], bool)
    for frame, found in zip(cover, detections, strict=True):
        for each in found:
            frame |= disc(frame.shape, each, 1.6)
    return cover


def _link(chains: list[list[Sighting]], sightings: list[Sighting]) -> None:
    """Append each sighting to the chain that it continues best, the surest pairs first; the rest start new chains."""
    pairs = sorted(
        (cost, i, j)
        for i, chain in enumerate(chains)
        for j, sighting in enumerate(sightings)
        if (cost := _cost(chain, sighting)) is not None
    )
    used_chains, used_sightings = set(), set()
    for _, i, j in pairs:
        if i not in used_chains and j not in used_sightings:
            chains[i].append(sightings[j])
            used_chains.add(i)
            used_sightings.add(j)
    chains += [[s] for j, s in enumerate(sightings) if j not in used_sightings]


def _cost(chain: list[Sighting], sighting: Sighting) -> float | None:
    """How badly a sighting continues a chain; None if it cannot."""
    last = chain[-1]
    missed = sighting.time - last.time
    if missed > PATIENCE:
        return None
    before = chain[-3] if len(chain) >= 3 else last
    elapsed = max(last.time - before.time, 1)
    expected_x = last.found.x + (last.found.x - before.found.x) / elapsed * missed
    expected_y = last.found.y + (last.found.y - before.found.y) / elapsed * missed
    distance = min(
        np.hypot(sighting.found.x - expected_x, sighting.found.y - expected_y),
        np.hypot(sighting.found.x - last.found.x, sighting.found.y - last.found.y),
    )
    size = (last.found.radius + sighting.found.radius) / 2
    if distance > (REACH * size + 6) * missed**0.5:
        return None
    return float(distance / size + np.linalg.norm(sighting.colour - last.colour) / COLOUR_COST)


def _track(chain: list[Sighting], camera: CameraMotion) -> Track:
    names = Counter(colour_name(s.colour) for s in chain)
    colour, votes = names.most_common(1)[0]
    shapes = sum(np.log(np.asarray(s.found.shapes) + 0.01) * s.found.score for s in chain)
    seen = np.array([[s.found.x, s.found.y] for s in chain])
    bottom = np.array([s.pixels.bottom for s in chain])
    shift, zoom = _floor_steps(chain, camera, bottom)
    radii = np.array([s.found.radius for s in chain])
    return Track(
        times=tuple(s.time for s in chain),
        colour=colour,
        colour_share=votes / len(chain),
        shape=SHAPES[int(np.argmax(shapes))],
        path=seen - shift,
        bottom=bottom - shift[:, 1],
        growth=np.log(radii / radii[0]) - zoom,
        upright=np.array([s.pixels.upright for s in chain]),
        radius=float(np.median(radii)),
        score=float(np.mean([s.found.score for s in chain])),
    )


def _floor_steps(chain: list[Sighting], camera: CameraMotion, bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the camera alone has moved the place of the solid since the first sighting, and how much it has grown."""
    stands_at = np.maximum(bottom, np.median(bottom[bottom >= np.percentile(bottom, 60)]) - 15)
    shift, zoom = np.zeros((len(chain), 2)), np.zeros(len(chain))
    for i in range(1, len(chain)):
        last, elapsed = chain[i - 1], chain[i].time - chain[i - 1].time
        across, _ = camera.displacement(last.found.x, stands_at[i - 1])
        _, down = camera.displacement(last.found.x, last.found.y)
        shift[i] = shift[i - 1] + elapsed * np.array([across, down])
        zoom[i] = zoom[i - 1] + elapsed * camera.zoom
    return shift, zoom
