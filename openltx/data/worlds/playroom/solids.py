"""The five solids: their proportions, their MuJoCo geoms, and the numbers the shader needs.

Every solid's origin is the middle of its height, and its axis is z. MuJoCo's ball, box, cylinder and capsule are its
own primitives; the cone is a convex mesh.
"""

import math
from dataclasses import dataclass

from openltx.data.worlds.playroom.scene import ObjectSpec, Shape

KINDS: dict[Shape, int] = {"ball": 0, "cube": 1, "cylinder": 2, "capsule": 3, "cone": 4}  # numbers in shader.glsl
CONE_SIDES = 20


@dataclass(frozen=True, kw_only=True)
class Solid:
    """Half sizes of a shape in scene units.

    ``width`` is the radius (half the side of a cube), ``half`` the half height (of a capsule's straight part).
    """

    shape: Shape
    width: float
    half: float
    rounding: float

    @property
    def rest_height(self) -> float:
        """Height of the origin above the floor when the solid stands upright."""
        return self.half + self.width if self.shape == "capsule" else self.half

    @property
    def centre_height(self) -> float:
        """Height of the centre of mass above the floor when the solid stands upright."""
        return 0.5 * self.half if self.shape == "cone" else self.rest_height

    @property
    def bound(self) -> float:
        """Radius of a sphere around the origin that holds the solid."""
        if self.shape == "ball":
            return self.width
        if self.shape == "capsule":
            return self.half + self.width
        side = self.width * math.sqrt(2) if self.shape == "cube" else self.width
        return math.hypot(side, self.half)

    @property
    def track_radius(self) -> float:
        """The radius that tracks report: of the sphere between the inscribed and the bounding one."""
        return 0.5 * (min(self.width, self.rest_height) + self.bound)

    def geom(self, name: str, attributes: str) -> str:
        """The MJCF geom."""
        match self.shape:
            case "ball":
                form = f'type="sphere" size="{self.width:.5f}"'
            case "cube":
                form = f'type="box" size="{self.width:.5f} {self.width:.5f} {self.half:.5f}"'
            case "cone":
                form = f'type="mesh" mesh="{name}"'
            case _:
                form = f'type="{self.shape}" size="{self.width:.5f} {self.half:.5f}"'
        return f'<geom name="{name}" {form} {attributes}/>'

    def asset(self, name: str) -> str:
        """The MJCF mesh of a cone; empty for the others."""
        if self.shape != "cone":
            return ""
        turns = [2 * math.pi * i / CONE_SIDES for i in range(CONE_SIDES)]
        ring = " ".join(
            f"{self.width * math.cos(a):.5f} {self.width * math.sin(a):.5f} {-self.half:.5f}" for a in turns
        )
        return f'<mesh name="{name}" vertex="0 0 {self.half:.5f} {ring}"/>'


def solid_of(spec: ObjectSpec, *, slender: bool = False) -> Solid:
    """The solid of an object; ``slender`` ones stand higher and narrower, so that a push topples them."""
    s = spec.scale
    match spec.shape:
        case "ball":
            return Solid(shape="ball", width=0.5 * s, half=0.5 * s, rounding=0.0)
        case "cube":
            return Solid(shape="cube", width=0.43 * s, half=0.43 * s, rounding=0.05 * s)
        case "cylinder":
            width, half = (0.25, 0.6) if slender else (0.36, 0.48)
            return Solid(shape="cylinder", width=width * s, half=half * s, rounding=0.04 * s)
        case "capsule":
            width, half = (0.23, 0.38) if slender else (0.29, 0.28)
            return Solid(shape="capsule", width=width * s, half=half * s, rounding=0.0)
        case "cone":
            width, half = (0.28, 0.62) if slender else (0.43, 0.5)
            return Solid(shape="cone", width=width * s, half=half * s, rounding=0.03 * s)
