"""Pictures of the stage: a small ray caster in GLSL that runs in the off-screen context MuJoCo opens (EGL or OSMesa).

MuJoCo's own renderer gives hard, aliased shadows and, without a GPU, a third of the speed; the physics is MuJoCo's, the
picture is drawn here. The background is one full-frame draw, each solid one draw inside its bounding rectangle.
"""

import atexit
import importlib.resources
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from openltx.data.worlds.playroom.camera import Size, View, sides
from openltx.data.worlds.playroom.offscreen import open_context
from openltx.data.worlds.playroom.physics import Motion
from openltx.data.worlds.playroom.scene import BACKDROPS, FLOORS, MATERIALS, PALETTE, Scene, linear
from openltx.data.worlds.playroom.solids import KINDS, Solid

ROWS, FIRST_OBJECT, ROWS_PER_OBJECT = 40, 16, 6  # the layout of `u` in shader.glsl: three solids at most
STRING_WIDTH, STRING_COLOUR = 0.008, (60, 56, 52)
WALL_DISTANCE = 2.5

VERTEX_SHADER = """#version 130
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }
"""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One solid of one frame, ready to draw."""

    solid: Solid
    position: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    material: int
    colour: tuple[int, int, int]


class Renderer:
    """An off-screen context with a picture of ``size``; one per process, used from one thread, freed at exit.

    Raises ``DataError`` if the machine has neither EGL nor OSMesa.
    """

    def __init__(self, size: Size = 128) -> None:
        self.size = sides(size)
        self._context = open_context(max(self.size))
        atexit.register(self._context.free)  # while the OpenGL bindings are still whole
        from OpenGL import GL

        self._gl: Any = GL
        self._programs = [self._program("#define BACKGROUND\n"), self._program("")]
        self._target()

    def render(
        self, scene: Scene, solids: tuple[Solid, ...], motion: Motion, views: list[View]
    ) -> UInt8[np.ndarray, "F height width 3"]:
        """All frames of a clip."""
        stage = _pack_stage(scene)
        frames = np.empty((len(views), self.size[1], self.size[0], 3), np.uint8)
        for index, view in enumerate(views):
            items = _items(scene, solids, motion, index)
            frames[index] = self._frame(stage, view, items, casters=len(solids))
        return frames

    def resize(self, size: Size) -> None:
        """Draw pictures of another size from now on."""
        if sides(size) == self.size:
            return
        self.size = sides(size)
        self._gl.glDeleteFramebuffers(1, [self._buffers[0]])
        self._gl.glDeleteRenderbuffers(1, [self._buffers[1]])
        self._target()

    def _frame(self, stage: np.ndarray, view: View, items: list[Item], casters: int) -> np.ndarray:
        gl = self._gl
        rows = _pack_frame(stage, view, items, casters, self.size)
        order = sorted(range(len(items)), key=lambda i: -float((items[i].position - view.eye) @ view.forward))
        for program, locations in self._programs:
            gl.glUseProgram(program)
            gl.glUniform4fv(locations["u"], ROWS, rows)
        gl.glUseProgram(self._programs[0][0])
        gl.glDisable(gl.GL_BLEND)
        gl.glScissor(0, 0, *self.size)
        gl.glDrawArrays(gl.GL_TRIANGLES, 0, 3)
        gl.glUseProgram(self._programs[1][0])
        gl.glEnable(gl.GL_BLEND)
        for index in order:
            gl.glScissor(*_rectangle(view, items[index], self.size))
            gl.glUniform1i(self._programs[1][1]["which"], index)
            gl.glDrawArrays(gl.GL_TRIANGLES, 0, 3)
        width, height = self.size
        pixels = gl.glReadPixels(0, 0, width, height, gl.GL_RGB, gl.GL_UNSIGNED_BYTE)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)

    def _program(self, defines: str) -> tuple[int, dict[str, int]]:
        gl = self._gl
        source = importlib.resources.files("openltx.data.worlds.playroom").joinpath("shader.glsl").read_text()
        program = gl.glCreateProgram()
        for kind, text in (
            (gl.GL_VERTEX_SHADER, VERTEX_SHADER),
            (gl.GL_FRAGMENT_SHADER, "#version 130\n" + defines + source),
        ):
            shader = gl.glCreateShader(kind)
            gl.glShaderSource(shader, text)
            gl.glCompileShader(shader)
            assert gl.glGetShaderiv(shader, gl.GL_COMPILE_STATUS), gl.glGetShaderInfoLog(shader)
            gl.glAttachShader(program, shader)
        gl.glLinkProgram(program)
        assert gl.glGetProgramiv(program, gl.GL_LINK_STATUS), gl.glGetProgramInfoLog(program)
        locations = {name: gl.glGetUniformLocation(program, name) for name in ("u", "resolution", "which")}
        return program, locations

    def _target(self) -> None:
        gl = self._gl
        for program, locations in self._programs:
            gl.glUseProgram(program)
            gl.glUniform2f(locations["resolution"], *self.size)
        frame, buffer = self._buffers = (gl.glGenFramebuffers(1), gl.glGenRenderbuffers(1))
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, frame)
        gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, buffer)
        gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, gl.GL_RGBA8, *self.size)
        gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, gl.GL_COLOR_ATTACHMENT0, gl.GL_RENDERBUFFER, buffer)
        assert gl.glCheckFramebufferStatus(gl.GL_FRAMEBUFFER) == gl.GL_FRAMEBUFFER_COMPLETE
        gl.glViewport(0, 0, *self.size)
        gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
        gl.glEnable(gl.GL_SCISSOR_TEST)
        gl.glBlendFuncSeparate(gl.GL_SRC_ALPHA, gl.GL_ONE_MINUS_SRC_ALPHA, gl.GL_ONE, gl.GL_ONE)


def _items(scene: Scene, solids: tuple[Solid, ...], motion: Motion, frame: int) -> list[Item]:
    items = [
        Item(
            solid=solid,
            position=motion.positions[frame, i],
            rotation=motion.rotations[frame, i],
            material=MATERIALS.index(spec.material),
            colour=PALETTE[spec.color],
        )
        for i, (solid, spec) in enumerate(zip(solids, scene.objects, strict=True))
    ]
    if motion.pivot is not None:
        items.append(_string(np.asarray(motion.pivot), items[0]))
    return items


def _string(pivot: np.ndarray, hung: Item) -> Item:
    axis = hung.rotation[:, 2]
    end = hung.position + axis * (hung.solid.rest_height - 0.01)
    top = pivot + axis * 0.6  # beyond the pivot, out of the picture's top
    rotation = np.stack([np.cross([0.0, 1.0, 0.0], axis), [0.0, 1.0, 0.0], axis], axis=1)
    half = float(np.linalg.norm(top - end)) / 2
    solid = Solid(shape="capsule", width=STRING_WIDTH, half=half, rounding=0.0)
    return Item(solid=solid, position=(top + end) / 2, rotation=rotation, material=0, colour=STRING_COLOUR)


def _pack_stage(scene: Scene) -> Float[np.ndarray, "rows 4"]:
    rows = np.zeros((ROWS, 4), np.float32)
    light, behind = scene.light, BACKDROPS[scene.backdrop]
    flat = math.cos(light.elevation)
    rows[4] = (
        flat * math.cos(light.azimuth),
        flat * math.sin(light.azimuth),
        math.sin(light.elevation),
        light.softness,
    )
    rows[5] = (0.84, 0.82, 0.79, light.ambient)
    rows[6] = (list(FLOORS).index(scene.floor), scene.floor_turn, *scene.floor_offset)
    rows[7, :3], rows[8, :3] = (linear(tone) for tone in FLOORS[scene.floor])
    rows[9] = (float(behind.wall), WALL_DISTANCE, 4.5, 0.16)
    rows[10, :3], rows[11, :3] = linear(behind.low), linear(behind.high)
    rows[10, 3] = 0.25
    return rows


def _pack_frame(stage: np.ndarray, view: View, items: list[Item], casters: int, size: tuple[int, int]) -> np.ndarray:
    rows = stage.copy()
    rows[0] = (*view.eye, view.tangent * size[1] / min(size))  # the shader's angle is the vertical one
    rows[1, :3], rows[2, :3], rows[3, :3] = view.right, view.up, view.forward
    rows[12, :2] = (len(items), casters)
    for i, item in enumerate(items):
        first = FIRST_OBJECT + ROWS_PER_OBJECT * i
        solid = item.solid
        rows[first] = (*item.position, KINDS[solid.shape])
        rows[first + 1 : first + 4, :3] = item.rotation.T
        rows[first + 1 : first + 3, 3] = (solid.bound, solid.rounding)
        rows[first + 4] = (solid.width, solid.width, solid.half, item.material)
        rows[first + 5, :3] = linear(item.colour)
    return rows


def _rectangle(view: View, item: Item, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x, y, radius = view.project(item.position, item.solid.bound, size)
    radius = 1.15 * radius + 2
    low = [min(max(math.floor(v - radius), 0), side) for v, side in zip((x, y), size, strict=True)]
    high = [min(max(math.ceil(v + radius), 0), side) for v, side in zip((x, y), size, strict=True)]
    return low[0], low[1], high[0] - low[0], high[1] - low[1]
