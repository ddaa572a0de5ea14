"""What a Playroom scene is, and how one is drawn from a seed.

Lengths are in scene units: at the middle of the stage the picture is about 1.2 units high. x points right, y away from
the camera, z up; the floor is z = 0. Colours are sRGB in 0..255, as they look in neutral light.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar, get_args

import numpy as np

T = TypeVar("T")

Shape = Literal["ball", "cube", "cylinder", "capsule", "cone"]
Event = Literal["bounce", "drop", "roll", "slide", "topple", "collide", "swing", "still"]
Direction = Literal["left", "right", "toward", "away"]
Camera = Literal["static", "pan left", "pan right", "orbit left", "orbit right", "zoom in", "zoom out"]
Material = Literal["rubber", "plastic", "metal"]
Size = Literal["small", "large"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
MATERIALS: tuple[Material, ...] = get_args(Material)
SIZES: dict[Size, float] = {"small": 0.28, "large": 0.44}  # height or diameter, in scene units

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (217, 26, 26),
    "orange": (245, 124, 16),
    "yellow": (245, 209, 30),
    "green": (28, 155, 45),
    "cyan": (30, 195, 205),
    "blue": (32, 64, 222),
    "purple": (128, 38, 180),
    "pink": (246, 120, 172),
    "white": (238, 238, 238),
    "black": (22, 22, 24),
}

# name: (lighter tone, darker tone); the order is the kind number in shader.glsl
FLOORS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "wooden": ((190, 138, 88), (140, 92, 52)),
    "checkered": ((216, 212, 204), (118, 112, 108)),
    "grey concrete": ((150, 150, 150), (120, 120, 120)),
    "green grass": ((92, 150, 58), (58, 110, 38)),
    "blue carpet": ((62, 86, 150), (46, 66, 126)),
    "white marble": ((236, 234, 230), (186, 186, 190)),
}


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """The far end of the stage: a sky (``low`` at the horizon) or a wall (``low`` at its foot)."""

    wall: bool
    low: tuple[int, int, int]
    high: tuple[int, int, int]


BACKDROPS: dict[str, Backdrop] = {
    "blue sky": Backdrop(wall=False, low=(214, 230, 248), high=(112, 170, 240)),
    "sunset sky": Backdrop(wall=False, low=(255, 204, 150), high=(196, 130, 170)),
    "night sky": Backdrop(wall=False, low=(70, 78, 120), high=(18, 22, 56)),
    "grey wall": Backdrop(wall=True, low=(104, 106, 112), high=(128, 130, 136)),
    "beige wall": Backdrop(wall=True, low=(222, 204, 172), high=(236, 222, 194)),
}

CAMERAS: dict[Camera, float] = {
    "static": 0.50,
    "pan left": 0.08,
    "pan right": 0.08,
    "orbit left": 0.085,
    "orbit right": 0.085,
    "zoom in": 0.085,
    "zoom out": 0.085,
}

EVENTS: dict[Event, float] = {
    "bounce": 0.20,
    "drop": 0.14,
    "roll": 0.20,
    "slide": 0.12,
    "topple": 0.10,
    "collide": 0.12,
    "swing": 0.07,
    "still": 0.05,
}

# Which shapes can be the main actor of an event, with their weights.
ACTORS: dict[Event, dict[Shape, float]] = {
    "bounce": {"ball": 1.0},
    "drop": {"ball": 0.1, "cube": 0.3, "cylinder": 0.2, "capsule": 0.2, "cone": 0.2},
    "roll": {"ball": 0.6, "cylinder": 0.25, "capsule": 0.15},
    "slide": {"cube": 0.5, "cylinder": 0.25, "cone": 0.25},
    "topple": {"cylinder": 0.4, "capsule": 0.25, "cone": 0.35},
    "collide": {"ball": 0.6, "cube": 0.25, "cylinder": 0.15},
    "swing": {"ball": 0.4, "cube": 0.2, "cylinder": 0.15, "capsule": 0.1, "cone": 0.15},
    "still": {"ball": 0.2, "cube": 0.2, "cylinder": 0.2, "capsule": 0.2, "cone": 0.2},
}

DIRECTIONS: dict[Event, dict[Direction, float]] = {
    "roll": {"left": 0.3, "right": 0.3, "toward": 0.2, "away": 0.2},
    "slide": {"left": 0.35, "right": 0.35, "toward": 0.15, "away": 0.15},
    "topple": {"left": 0.5, "right": 0.5},
    "collide": {"left": 0.5, "right": 0.5},
}

CLIP_LENGTHS: dict[int, float] = {25: 0.15, 33: 0.20, 41: 0.25, 49: 0.40}
BYSTANDER_CHANCE = 0.22
FLOOR_CONTRAST, BACKDROP_CONTRAST = 34.0, 24.0  # least CIELAB distance (1976) of an object's colour to both tones


@dataclass(frozen=True, kw_only=True)
class ObjectSpec:
    """One solid; ``role`` is "main", "target" (what the main one hits) or "bystander" (stands by)."""

    shape: Shape
    color: str
    size: Size
    material: Material
    role: Literal["main", "target", "bystander"]
    scale: float  # size in scene units


@dataclass(frozen=True, kw_only=True)
class Light:
    """One key light: where it stands (radians), how strong it is beside the ambient light, how soft its shadows are."""

    azimuth: float
    elevation: float
    ambient: float
    softness: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything a caption may mention, and the look; how exactly the objects are launched is `events.Launch`."""

    frames: int
    objects: tuple[ObjectSpec, ...]
    event: Event
    direction: Direction | None
    floor: str
    backdrop: str
    camera: Camera
    light: Light
    camera_pitch: float  # radians below the horizontal
    camera_travel: float  # how far the camera moves, 0.7 to 1.3 of the usual
    floor_turn: float
    floor_offset: tuple[float, float]


def sample_scene(rng: np.random.Generator) -> Scene:
    """A scene in which every object can be told from the floor and the backdrop."""
    event = _choose(rng, EVENTS)
    colour = str(rng.choice(list(PALETTE)))
    stages = [(floor, backdrop) for floor in FLOORS for backdrop in BACKDROPS if is_distinct(colour, floor, backdrop)]
    floor, backdrop = stages[rng.integers(len(stages))]
    direction = _choose(rng, DIRECTIONS[event]) if event in DIRECTIONS else None
    camera = _choose(rng, CAMERAS)
    if event == "still" and camera == "static":
        camera = _choose(rng, CAMERAS)  # something should move more often than not
    return Scene(
        frames=_choose(rng, CLIP_LENGTHS),
        objects=_sample_objects(rng, event, colour, floor, backdrop),
        event=event,
        direction=direction,
        floor=floor,
        backdrop=backdrop,
        camera=camera,
        light=Light(
            azimuth=rng.uniform(-2.6, -0.55),
            elevation=rng.uniform(0.85, 1.2),
            ambient=rng.uniform(0.30, 0.40),
            softness=rng.uniform(1.8, 4.0),
        ),
        camera_pitch=math.radians(rng.uniform(7.0, 19.0)),
        camera_travel=rng.uniform(0.7, 1.3),
        floor_turn=rng.choice([0.0, math.pi / 2]) + rng.uniform(-0.25, 0.25),
        floor_offset=(rng.uniform(-5, 5), rng.uniform(-5, 5)),
    )


def _sample_objects(
    rng: np.random.Generator, event: Event, colour: str, floor: str, backdrop: str
) -> tuple[ObjectSpec, ...]:
    roles: list[Literal["main", "target", "bystander"]] = ["main"]
    if event == "collide":
        roles.append("target")
    elif rng.random() < BYSTANDER_CHANCE:
        roles.append("bystander")
    others = [c for c in PALETTE if c != colour and is_distinct(c, floor, backdrop)]
    colours = [colour, str(rng.choice(others))]
    objects = []
    for role, paint in zip(roles, colours, strict=False):
        shape: Shape = _choose(rng, ACTORS[event]) if role == "main" else SHAPES[rng.integers(len(SHAPES))]
        size: Size = "large" if rng.random() < (0.6 if role == "main" else 0.4) else "small"
        material = MATERIALS[rng.integers(len(MATERIALS))]
        scale = SIZES[size] * rng.uniform(0.94, 1.06)
        objects.append(ObjectSpec(shape=shape, color=paint, size=size, material=material, role=role, scale=scale))
    return tuple(objects)


@cache
def is_distinct(colour: str, floor: str, backdrop: str) -> bool:
    """Whether an object of this colour stands out from both tones of the floor and of the backdrop."""
    behind = BACKDROPS[backdrop]
    limits = [(tone, FLOOR_CONTRAST) for tone in FLOORS[floor]]
    limits += [(tone, BACKDROP_CONTRAST) for tone in (behind.low, behind.high)]
    mine = lab(PALETTE[colour])
    return all(float(np.linalg.norm(mine - lab(tone))) >= limit for tone, limit in limits)


def lab(rgb: tuple[int, int, int]) -> np.ndarray:
    """sRGB 0..255 to CIELAB (D65)."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ linear(rgb) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def linear(rgb: tuple[int, int, int]) -> np.ndarray:
    """sRGB 0..255 to linear light in 0..1 (a plain 2.2 power, as the shader inverts it)."""
    return (np.asarray(rgb, dtype=np.float64) / 255) ** 2.2


def _choose(rng: np.random.Generator, weights: dict[T, float]) -> T:
    values = list(weights)
    total = np.array(list(weights.values()))
    return values[int(rng.choice(len(values), p=total / total.sum()))]
