"""Intervals against scipy's bootstrap and the closed form of the jackknife."""

import numpy as np
import pytest

from openltx.eval.intervals import jackknife, mean_of


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).gamma(2.0, size=40)
    found = mean_of(values.tolist())
    assert found is not None
    expected = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_what_is_unknown_is_left_out_and_one_value_has_no_interval() -> None:
    assert mean_of([None, None]) is None
    one = mean_of([None, 3.0])
    assert one is not None
    assert (one.value, one.low, one.high, one.n) == (3.0, None, None, 1)


def test_the_jackknife_of_a_mean_is_the_standard_error() -> None:
    values = np.random.default_rng(1).standard_normal(15)
    found = jackknife(values.tolist(), lambda part: float(np.mean(part)))
    assert found.high is not None
    assert found.high - found.value == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(15))


def test_most_intervals_hold_the_truth() -> None:
    draws = np.random.default_rng(2).standard_normal((200, 30))
    found = [mean_of(row.tolist(), seed=i) for i, row in enumerate(draws)]
    held = np.mean([e is not None and e.low is not None and e.high is not None and e.low < 0 < e.high for e in found])
    assert 0.88 < held < 0.99


def test_a_share_has_wilsons_interval_and_keeps_a_width_at_the_ends() -> None:
    from scipy.stats import binomtest

    for successes, trials in ((4, 4), (0, 9), (7, 20)):
        found = mean_of([1.0] * successes + [0.0] * (trials - successes), is_share=True)
        expected = binomtest(successes, trials).proportion_ci(method="wilson")
        assert found is not None
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)
