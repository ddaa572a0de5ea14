"""The Frechet distance: closed forms, symmetry, and what few samples do to it."""

import numpy as np
import pytest

from openltx.eval.frechet import compare_features, frechet_distance, num_components, principal_axes


def standardised(samples: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = np.random.default_rng(seed).standard_normal((samples, dimensions))
    x -= x.mean(0)
    q, _ = np.linalg.qr(x)
    return q * np.sqrt(samples - 1)


def test_equal_sets_are_at_distance_zero_with_many_samples_and_with_few() -> None:
    for samples, dimensions in ((50, 4), (5, 40)):
        x = np.random.default_rng(0).standard_normal((samples, dimensions))
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
        assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)


def test_a_shift_costs_its_squared_length() -> None:
    x, shift = standardised(200, 6), np.array([3.0, 0, 0, 4.0, 0, 0])
    assert frechet_distance(x, x + shift) == pytest.approx(25)
    assert frechet_distance(x[:5], x[:5] + shift) == pytest.approx(25)


def test_gaussians_of_other_width_are_at_their_closed_form() -> None:
    x, y = standardised(300, 3, seed=1), standardised(200, 3, seed=2)
    widths = np.array([2.0, 0.5, 1.0])
    assert frechet_distance(x * widths, y * 3 + 1) == pytest.approx(3 + ((widths - 3) ** 2).sum())


def test_it_equals_the_textbook_formula_where_the_covariances_have_full_rank() -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((80, 5)) @ random.standard_normal((5, 5))
    y = random.standard_normal((60, 5)) @ random.standard_normal((5, 5)) + 1
    a, b = np.cov(x.T), np.cov(y.T)
    root_trace = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * root_trace
    assert frechet_distance(x, y) == pytest.approx(expected)
    assert frechet_distance(y, x) == pytest.approx(expected)


def test_few_samples_put_equal_distributions_apart_and_fewer_dimensions_less_so() -> None:
    random = np.random.default_rng(4)
    x, y = random.standard_normal((2, 60, 200))
    found = compare_features(x, y)
    assert found is not None
    assert found.distance > 100
    assert found.reduced is not None
    assert found.reduced < found.distance / 4


def test_one_component_needs_ten_samples_and_a_distance_two() -> None:
    x = np.random.default_rng(5).standard_normal((9, 4))
    found = compare_features(x, x + 1)
    assert found is not None
    assert found.distance == pytest.approx(4)
    assert found.reduced is None
    assert compare_features(x[:1], x[:1]) is None
    assert [num_components(n, 1280) for n in (9, 10, 336, 10_000)] == [0, 1, 33, 64]


def test_principal_axes_find_the_direction_of_most_variance() -> None:
    direction = np.array([0.6, 0.0, 0.8])
    x = standardised(100, 3) + 5 * standardised(100, 1, seed=6) * direction
    assert abs(principal_axes(x, 1)[:, 0] @ direction) > 0.99
