"""A scene and a launch as a MuJoCo model, and its motion.

Restitution: a contact is a damped spring (``solref`` with negative numbers: stiffness, damping). With damping ratio z a
bounce keeps the share e = exp(-pi z / sqrt(1 - z^2)) of its speed; solved for z here.
"""

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from openltx.data.worlds.playroom.launch import FPS, Launch, Start
from openltx.data.worlds.playroom.solids import Solid

STEPS_PER_FRAME = 20
STIFFNESS = 160.0**2  # 1/s^2: a contact lasts about 20 ms


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What happened: poses per frame, and the contacts between frames.

    ``positions`` (F n 3) of the solids' origins; ``rotations`` (F n 3 3), columns are the solids' axes; ``floor`` (F n)
    whether a solid touched the floor since the frame before; ``meeting`` (F) whether the two objects touched; ``pivot``
    where the string is tied.
    """

    positions: Float[np.ndarray, "F n 3"]
    rotations: Float[np.ndarray, "F n 3 3"]
    floor: Bool[np.ndarray, "F n"]
    meeting: Bool[np.ndarray, " F"]
    pivot: tuple[float, float, float] | None


def simulate(solids: tuple[Solid, ...], launch: Launch, frames: int) -> Motion:
    """Run the model for ``frames`` frames; the first one is the start."""
    mujoco: Any = importlib.import_module("mujoco")  # its native part has no types
    model = mujoco.MjModel.from_xml_string(mjcf(solids, launch))
    data = mujoco.MjData(model)
    _set_velocities(data, launch)
    mujoco.mj_forward(model, data)
    bodies = [model.body(f"object{i}").id for i in range(len(solids))]
    names = {model.geom(f"object{i}").id: i for i in range(len(solids))}
    positions, rotations = np.zeros((frames, len(solids), 3)), np.zeros((frames, len(solids), 3, 3))
    floor, meeting = np.zeros((frames, len(solids)), bool), np.zeros(frames, bool)
    kicks = [(round(s.kick_time * FPS * STEPS_PER_FRAME), i) for i, s in enumerate(launch.starts) if s.kick]
    for frame in range(frames):
        positions[frame] = data.xpos[bodies]
        rotations[frame] = data.xmat[bodies].reshape(-1, 3, 3)
        if frame == frames - 1:
            break
        for step in range(STEPS_PER_FRAME):
            for when, index in kicks:
                if when == frame * STEPS_PER_FRAME + step:
                    _kick(data, index, launch.starts[index])
            mujoco.mj_step(model, data)
            for pair in data.contact.geom[: data.ncon] if data.ncon else ():
                touched = [names[g] for g in pair if g in names]
                if len(touched) == 2:
                    meeting[frame + 1] = True
                elif touched:
                    floor[frame + 1, touched[0]] = True
    pivot = launch.string.pivot if launch.string else None
    return Motion(positions=positions, rotations=rotations, floor=floor, meeting=meeting, pivot=pivot)


def mjcf(solids: tuple[Solid, ...], launch: Launch) -> str:
    """The MuJoCo XML of the stage: a floor, the solids, the string."""
    bodies = []
    for i, (solid, start) in enumerate(zip(solids, launch.starts, strict=True)):
        geom = solid.geom(f"object{i}", _surface(start))
        if i == 0 and launch.string:
            string = launch.string
            bodies.append(
                f'<body pos="{_numbers(string.pivot)}"><joint name="string" type="hinge" axis="0 1 0" damping="0.001"/>'
                f'<body name="object0" pos="0 0 {-string.length:.5f}">{geom}</body></body>'
            )
        else:
            place = f'pos="{_numbers(start.position)}" quat="{_numbers(start.rotation)}"'
            bodies.append(f'<body name="object{i}" {place}><freejoint name="free{i}"/>{geom}</body>')
    assets = "".join(solid.asset(f"object{i}") for i, solid in enumerate(solids))
    return f"""<mujoco>
      <option timestep="{1 / (FPS * STEPS_PER_FRAME):.9f}" gravity="0 0 {-launch.gravity}" cone="elliptic"/>
      <asset>{assets}</asset>
      <worldbody><geom name="floor" type="plane" size="0 0 1" condim="6"/>{"".join(bodies)}</worldbody>
    </mujoco>"""


def _surface(start: Start) -> str:
    loss = math.log(1 / start.restitution)
    ratio = loss / math.hypot(math.pi, loss)
    spring = f"{-STIFFNESS:.1f} {-2 * ratio * math.sqrt(STIFFNESS):.3f}"
    friction = f"{start.friction:.5f} 0.002 {start.rolling:.5f}"
    return (
        f'density="{start.density:.1f}" friction="{friction}" condim="6" priority="1" '
        f'solref="{spring}" solimp="0.98 0.99 0.002"'
    )


def _set_velocities(data: Any, launch: Launch) -> None:
    if launch.string:
        data.joint("string").qpos[0] = launch.string.angle
    for i, start in enumerate(launch.starts):
        if i == 0 and launch.string:
            continue
        data.joint(f"free{i}").qvel[:] = [*start.velocity, *start.spin]


def _kick(data: Any, index: int, start: Start) -> None:
    assert start.kick is not None
    data.joint(f"free{index}").qvel[:] += np.concatenate([np.asarray(v) for v in start.kick])


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.6f}" for v in values)
