"""The camera: its path over a clip, and where points and spheres appear in its picture."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from openltx.data.worlds.playroom.scene import Scene

TARGET = np.array([0.0, 0.0, 0.40])
DISTANCE = 2.09
HALF_ANGLE = math.radians(16.0)
PAN, ORBIT, ZOOM = math.radians(4.5), math.radians(13.0), 0.17  # to each side of the middle


Size = int | tuple[int, int]
"""Pixels of a picture: (width, height), or one number for a square."""


def sides(size: Size) -> tuple[int, int]:
    """Width and height."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class View:
    """One frame's camera: ``eye``, unit vectors, and the tangent of half the angle of view of the shorter side."""

    eye: Float[np.ndarray, "3"]
    right: Float[np.ndarray, "3"]
    up: Float[np.ndarray, "3"]
    forward: Float[np.ndarray, "3"]
    tangent: float

    def project(self, point: Float[np.ndarray, "3"], radius: float, size: Size) -> tuple[float, float, float]:
        """Pixel x and y (from the top left corner) of a point, and the radius in pixels of a sphere around it."""
        width, height = sides(size)
        ray = point - self.eye
        depth = float(ray @ self.forward)
        scale = 0.5 * min(width, height) / (self.tangent * max(depth, 1e-3))
        x, y = 0.5 * width + float(ray @ self.right) * scale, 0.5 * height - float(ray @ self.up) * scale
        return x, y, radius * scale


def path(scene: Scene) -> list[View]:
    """The views of a clip's frames. Moves are smooth and last for the whole clip."""
    move, _, way = scene.camera.partition(" ")
    sign = -1.0 if way in ("left", "out") else 1.0
    if move == "pan" and scene.direction in ("left", "right"):
        sign *= 0.6  # a pan with the motion must not hide it
    amounts = sign * scene.camera_travel * np.linspace(-1.0, 1.0, scene.frames)
    views = []
    for amount in amounts:
        orbit = ORBIT * amount if move == "orbit" else 0.0
        pan = PAN * amount if move == "pan" else 0.0
        zoom = math.exp(-ZOOM * amount) if move == "zoom" else 1.0
        views.append(_view(scene.camera_pitch, orbit, pan, math.tan(HALF_ANGLE) * zoom))
    return views


def _view(pitch: float, orbit: float, pan: float, tangent: float) -> View:
    away = np.array([math.sin(orbit) * math.cos(pitch), -math.cos(orbit) * math.cos(pitch), math.sin(pitch)])
    eye = TARGET + DISTANCE * away
    turn = orbit - pan  # heading, anticlockwise from the y axis seen from above
    forward = np.array([-math.sin(turn) * math.cos(pitch), math.cos(turn) * math.cos(pitch), -math.sin(pitch)])
    right = np.array([math.cos(turn), math.sin(turn), 0.0])
    return View(eye=eye, right=right, up=np.cross(right, forward), forward=forward, tangent=tangent)
