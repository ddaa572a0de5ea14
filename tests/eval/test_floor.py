"""The camera's move is read off the floor, whatever the solids do."""

import numpy as np
import pytest

from openltx.eval.floor import camera_motion


def nothing(frames: np.ndarray) -> np.ndarray:
    return np.zeros(frames.shape[:3], bool)


@pytest.mark.parametrize("pan", [-40, -15, 15, 40])
def test_a_pan_is_measured_in_pixels(stage, pan: float) -> None:
    frames = stage(pan=pan).frames
    found = camera_motion(frames, nothing(frames))
    assert found.move == "pan"
    assert found.pan * 24 == pytest.approx(pan, abs=2)


@pytest.mark.parametrize("zoom", [-0.3, 0.3])
def test_a_zoom_is_measured_as_a_rate_of_growth(stage, zoom: float) -> None:
    frames = stage(zoom=zoom).frames
    found = camera_motion(frames, nothing(frames))
    assert found.move == "zoom"
    assert found.zoom * 24 == pytest.approx(zoom, abs=0.05)
    assert found.displacement(*found.centre) == (0, 0)


def test_a_moving_solid_is_no_camera_move(stage, solid) -> None:
    frames = stage(solid("red", "ball", lambda s: (0.2 + 0.6 * s, 0.75), lambda _: (20.0, 20.0))).frames
    assert camera_motion(frames, nothing(frames)).move == "static"


def test_a_floor_without_texture_stands_still(stage) -> None:
    frames = np.full((9, 128, 128, 3), 120, np.uint8)
    assert camera_motion(frames, nothing(frames)).move == "static"
    assert camera_motion(frames[:1], nothing(frames[:1])).move == "static"
