"""How the objects of a scene start: places, speeds, friction and bounciness, drawn per event.

A launch is a proposal. `events.observe` decides from the simulated trajectory whether the event really happened; if
not, another launch is drawn.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from openltx.data.worlds.playroom.scene import Direction, Scene
from openltx.data.worlds.playroom.solids import Solid

FPS = 24
Vector = tuple[float, float, float]
UPRIGHT: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
HEADINGS: dict[Direction, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "toward": (0.0, -1.0),
    "away": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Start:
    """One object's state at the first frame; ``kick`` is added to its velocity (linear, angular) at ``kick_time`` s."""

    position: Vector
    rotation: tuple[float, float, float, float] = UPRIGHT  # quaternion w x y z
    velocity: Vector = (0.0, 0.0, 0.0)
    spin: Vector = (0.0, 0.0, 0.0)  # rad/s, in the object's own frame
    friction: float = 0.8
    rolling: float = 0.0004
    restitution: float = 0.2
    density: float = 300.0
    kick: tuple[Vector, Vector] | None = None
    kick_time: float = 0.0


@dataclass(frozen=True, kw_only=True)
class String:
    """The main object hangs ``length`` below ``pivot`` and is let go at ``angle`` radians."""

    pivot: Vector
    length: float
    angle: float


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The starts of all objects, main first."""

    gravity: float
    starts: tuple[Start, ...]
    string: String | None = None


def sample_launch(scene: Scene, solids: tuple[Solid, ...], rng: np.random.Generator) -> Launch:
    """Draw a launch that is likely to bring about the scene's event."""
    seconds = scene.frames / FPS
    main = solids[0]
    string = None
    gravity = 6.0
    match scene.event:
        case "bounce" | "drop":
            start = _falling(main, rng, bouncy=scene.event == "bounce")
        case "roll":
            start = _rolling(main, _direction(scene), seconds, rng)
        case "slide":
            start = _sliding(main, _direction(scene), seconds, gravity, rng)
        case "topple":
            start = _toppling(main, _direction(scene), gravity, rng)
        case "collide":
            return _colliding(scene, solids, seconds, gravity, rng)
        case "swing":
            gravity = 9.81
            string = String(
                pivot=(rng.uniform(-0.08, 0.08), rng.uniform(-0.05, 0.1), rng.uniform(1.06, 1.2)),
                length=rng.uniform(0.58, 0.7),
                angle=rng.choice([-1, 1]) * rng.uniform(0.5, 0.85),
            )
            start = Start(position=(0.0, 0.0, 0.0))
        case "still":
            start = _standing(main, rng, x=rng.uniform(-0.15, 0.15), y=rng.uniform(-0.2, 0.2))
    starts = [start]
    if len(solids) > 1:
        side = rng.choice([-1, 1])
        if scene.event == "still":
            starts[0] = _standing(main, rng, x=-0.24 * side, y=rng.uniform(-0.15, 0.15))
            starts.append(_standing(solids[1], rng, x=0.26 * side, y=rng.uniform(-0.15, 0.25)))
        else:
            starts.append(_standing(solids[1], rng, x=side * rng.uniform(0.3, 0.44), y=rng.uniform(0.35, 0.6)))
    return Launch(gravity=gravity, starts=tuple(starts), string=string)


def _direction(scene: Scene) -> Direction:
    assert scene.direction is not None, scene.event
    return scene.direction


def _standing(solid: Solid, rng: np.random.Generator, *, x: float, y: float) -> Start:
    if solid.shape == "capsule":  # it would fall if it stood: it lies across the picture
        lying = _about_z(rng.uniform(-0.5, 0.5), then=(math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0))
        return Start(position=(x, y, solid.width), rotation=lying, rolling=0.01)
    turn = _about_z(rng.uniform(0, math.pi))
    return Start(position=(x, y, solid.rest_height), rotation=turn, rolling=0.01)


def _falling(solid: Solid, rng: np.random.Generator, *, bouncy: bool) -> Start:
    height = 0.97 - min(solid.bound, 0.24) - rng.uniform(0.0, 0.12)
    tilt = rng.uniform(0.1, 0.7)
    axis = rng.uniform(0, 2 * math.pi)
    tilted = (math.cos(tilt / 2), math.sin(tilt / 2) * math.cos(axis), math.sin(tilt / 2) * math.sin(axis), 0.0)
    return Start(
        position=(rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.1), height),
        rotation=UPRIGHT if solid.shape == "ball" else tilted,
        velocity=(rng.uniform(-0.15, 0.15), rng.uniform(-0.06, 0.06), 0.0),
        spin=(0.0, 0.0, 0.0) if solid.shape == "ball" else _three(rng),
        restitution=rng.uniform(0.6, 0.88)
        if bouncy
        else rng.uniform(0.03, 0.3) * (0.3 if solid.shape == "ball" else 1),
        rolling=0.004,
    )


def _path(direction: Direction, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Where a travelling object starts (on the floor), its heading, and how far it should go."""
    heading = np.array([*HEADINGS[direction]])
    if direction in ("left", "right"):
        distance = rng.uniform(0.75, 1.05)
        return -heading * (0.5 * distance - rng.uniform(-0.04, 0.08)) + [0, rng.uniform(-0.2, 0.15)], heading, distance
    distance = rng.uniform(1.0, 1.5)
    first = -0.55 if direction == "away" else distance - 0.5
    return np.array([rng.uniform(-0.14, 0.14), first]), heading, distance


def _rolling(solid: Solid, direction: Direction, seconds: float, rng: np.random.Generator) -> Start:
    place, heading, distance = _path(direction, rng)
    speed = distance / seconds
    rotation, spin = UPRIGHT, (0.0, 0.0, 0.0)
    turn = speed / solid.width
    axis = np.array([-heading[1], heading[0]])  # z cross heading: a right-handed turn about it rolls forward
    if solid.shape == "ball":
        spin = (axis[0] * turn, axis[1] * turn, 0.0)
    else:  # lie down with the own z axis along `axis`; the spin is about the own z
        rotation = _z_onto(axis)
        spin = (0.0, 0.0, turn)
    return Start(
        position=(place[0], place[1], solid.width),
        rotation=rotation,
        velocity=(heading[0] * speed, heading[1] * speed, 0.0),
        spin=spin,
        restitution=0.05,
    )


def _sliding(solid: Solid, direction: Direction, seconds: float, gravity: float, rng: np.random.Generator) -> Start:
    place, heading, distance = _path(direction, rng)
    stop = seconds * rng.uniform(0.85, 1.3)
    speed = 2 * distance / stop
    turn = _about_z(rng.uniform(0, math.pi / 2))
    return Start(
        position=(place[0], place[1], solid.rest_height),
        rotation=turn,
        velocity=(heading[0] * speed, heading[1] * speed, 0.0),
        friction=speed / (gravity * stop),
        restitution=0.02,
    )


def _toppling(solid: Solid, direction: Direction, gravity: float, rng: np.random.Generator) -> Start:
    heading = HEADINGS[direction][0]
    edge, height = (solid.width if solid.shape != "capsule" else 0.03), solid.centre_height
    reach = math.hypot(edge, height)
    inertia = reach**2 + (2 * solid.half) ** 2 / (12 if solid.shape != "cone" else 25)
    needed = math.sqrt(2 * gravity * (reach - height) / inertia)
    turn = heading * needed * rng.uniform(1.15, 1.6) + heading * 0.35
    return Start(
        position=(-heading * rng.uniform(0.08, 0.25), rng.uniform(-0.15, 0.1), solid.rest_height),
        friction=1.2,
        rolling=0.006,
        restitution=0.1,
        kick=((turn * solid.rest_height, 0.0, 0.5 * abs(turn) * edge), (0.0, turn, 0.0)),
        kick_time=rng.uniform(0.1, 0.25),
    )


def _colliding(
    scene: Scene, solids: tuple[Solid, ...], seconds: float, gravity: float, rng: np.random.Generator
) -> Launch:
    direction = _direction(scene)
    heading = HEADINGS[direction][0]
    main, target = solids
    rolling = _rolling(main, direction, seconds, rng) if main.shape != "cube" else None
    y = rng.uniform(-0.15, 0.05)
    start_x, target_x = -heading * rng.uniform(0.45, 0.52), heading * rng.uniform(0.05, 0.2)
    gap = abs(target_x - start_x) - main.width - target.width
    speed = max(gap / (rng.uniform(0.3, 0.45) * seconds), 0.9)
    lighter = 400.0 * (scene.objects[0].scale / scene.objects[1].scale) ** 3  # so that the hit one always gives way
    if rolling is None:
        first = Start(position=(start_x, y, main.rest_height), friction=0.03)
    else:
        scale = speed / abs(rolling.velocity[0])
        spin = (scale * rolling.spin[0], scale * rolling.spin[1], scale * rolling.spin[2])
        first = Start(position=(start_x, y, main.width), rotation=rolling.rotation, spin=spin)
    first = replace(first, velocity=(heading * speed, 0.0, 0.0), restitution=0.45, density=600.0)
    second = _standing(target, rng, x=target_x, y=y + rng.uniform(-0.03, 0.03))
    second = replace(second, friction=0.25, rolling=0.002, restitution=0.45, density=lighter)
    return Launch(gravity=gravity, starts=(first, second))


def _three(rng: np.random.Generator) -> Vector:
    x, y, z = rng.uniform(-1.0, 1.0, 3)
    return (x, y, z)


def _about_z(angle: float, then: tuple[float, float, float, float] = UPRIGHT) -> tuple[float, float, float, float]:
    """The quaternion of `then` followed by a turn about the vertical."""
    w, x, y, z = then
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return (c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w)


def _z_onto(axis: np.ndarray) -> tuple[float, float, float, float]:
    """The quaternion that turns the z axis onto a horizontal unit vector."""
    h = math.sqrt(0.5)
    return (h, -axis[1] * h, axis[0] * h, 0.0)
