"""What moves, flickers and stays: measured on videos of which it is known."""

from collections.abc import Callable

import numpy as np
import pytest

from openltx.eval import temporal


def texture(size: int = 160, seed: int = 0) -> np.ndarray:
    """Smooth random blotches, with values from 0 to 255."""
    import cv2

    noise = np.random.default_rng(seed).uniform(0, 255, (size // 8, size // 8, 3)).astype(np.float32)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def moving(places: np.ndarray, side: int = 64) -> np.ndarray:
    """A window of ``side`` pixels over the texture, at the given columns (whole pixels)."""
    page = texture().astype(np.uint8)
    return np.stack([page[20 : 20 + side, int(x) : int(x) + side] for x in places])


still = moving(np.full(9, 10))


def test_a_still_picture_is_perfect_and_not_dynamic() -> None:
    assert temporal.temporal_flickering(still) == 1
    assert temporal.motion_smoothness(still) == pytest.approx(1, abs=1e-3)
    assert temporal.dynamic_degree(still, 8.0) == 0
    assert temporal.consistency(np.ones((4, 3))) == pytest.approx(1)


def test_single_frames_have_no_numbers() -> None:
    assert temporal.temporal_flickering(still[:1]) is None
    assert temporal.motion_smoothness(still[:2]) is None
    assert temporal.dynamic_degree(still[:1], 24.0) is None
    assert temporal.consistency(np.ones((1, 3))) is None


def test_flickering_is_the_mean_difference_of_neighbours() -> None:
    light = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (100, 151, 100)])
    assert temporal.temporal_flickering(light) == pytest.approx(1 - 51 / 255)


def test_steady_motion_is_smoother_than_jerks_of_the_same_speed() -> None:
    steady, jerky = moving(np.arange(9) * 2), moving(np.array([0, 6, 2, 8, 4, 10, 6, 12, 8]))
    smooth, rough = temporal.motion_smoothness(steady), temporal.motion_smoothness(jerky)
    assert smooth is not None
    assert rough is not None
    assert smooth > 0.98 > rough + 0.02


def test_the_interpolated_frame_follows_the_motion_where_a_mean_would_blur() -> None:
    a, middle, b = moving(np.array([0, 3, 6]))
    mixed = (a.astype(np.float32) + b) / 2
    inside = np.s_[8:-8, 8:-8]
    error = np.abs(temporal.between(a, b) - middle)[inside].mean()
    assert error < 0.25 * np.abs(mixed - middle)[inside].mean()


@pytest.mark.parametrize(("pixels_a_frame", "dynamic"), [(0, 0.0), (1, 0.0), (4, 1.0)])
def test_dynamic_is_what_moves_faster_than_six_pixels_of_256(pixels_a_frame: int, dynamic: float) -> None:
    # at 64 pixels the threshold is 1.5 a thinned-out frame
    assert temporal.dynamic_degree(moving(np.arange(9) * pixels_a_frame), 8.0) == dynamic


def test_frames_are_thinned_out_to_eight_a_second() -> None:
    slow = moving(np.arange(25))
    assert temporal.dynamic_degree(slow, 8.0) == 0
    assert temporal.dynamic_degree(slow, 24.0) == 1  # three pixels from one used frame to the next


def test_flow_is_the_motion() -> None:
    a, b = moving(np.array([0, 3]))
    found = temporal.flow(a, b)[12:-12, 12:-12].reshape(-1, 2)
    assert np.median(found, axis=0) == pytest.approx([-3, 0], abs=0.3)


def test_consistency_is_the_mean_of_cosines_with_the_last_and_the_first() -> None:
    features = np.array([[1.0, 0], [0, 1.0], [-1.0, 0]])
    assert temporal.consistency(features) == 0  # orthogonal, and opposite counts as 0
    features = np.array([[1.0, 0], [1.0, 1.0]])
    assert temporal.consistency(features) == pytest.approx(np.sqrt(0.5))


def test_the_measures_do_not_depend_on_scale_of_features() -> None:
    features = np.random.default_rng(0).uniform(size=(5, 7))
    once: Callable[..., float | None] = temporal.consistency
    assert once(features) == pytest.approx(once(100 * features))
