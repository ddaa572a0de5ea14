import math

import numpy as np
import pytest
import torch

from openltx.errors import RequestError
from openltx.flow.schedule import (
    Schedule,
    linear_quadratic,
    part_of,
    sample_logit_normal,
    sd3_shift,
    shift_for_tokens,
    stretch_to_terminal,
    uniform,
)


def test_eight_linear_quadratic_steps_are_those_of_the_distilled_releases() -> None:
    expected = [1, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875]
    assert linear_quadratic(8).equal(torch.tensor(expected))


def test_an_odd_number_of_linear_quadratic_steps_has_the_shorter_half_first() -> None:
    torch.testing.assert_close(linear_quadratic(5), torch.tensor([1, 0.9875, 0.975, 0.858333, 0.533333]))


def test_uniform_steps_are_equal_and_stop_one_short_of_zero() -> None:
    torch.testing.assert_close(uniform(4), torch.tensor([1, 0.75, 0.5, 0.25]))


@pytest.mark.parametrize(("tokens", "mu"), [(1024, 0.95), (4096, 2.05), (6080, 2.7604), (12160, 4.9375)])
def test_shift_grows_linearly_with_the_token_count_beyond_its_anchors(tokens: int, mu: float) -> None:
    assert shift_for_tokens(tokens) == pytest.approx(mu, abs=1e-4)


def test_shift_is_a_step_in_the_logit_of_t() -> None:
    t = torch.tensor([0.9, 0.5, 0.1])
    torch.testing.assert_close(torch.logit(sd3_shift(t, 1.3)), torch.logit(t) + 1.3)
    assert sd3_shift(t, 2.05)[1] == pytest.approx(0.885948, abs=1e-6)


def test_stretch_ends_at_the_terminal_and_keeps_proportions() -> None:
    t = sd3_shift(uniform(10), 2.0)
    stretched = stretch_to_terminal(t, 0.1)
    assert stretched[0] == 1
    assert stretched[-1] == pytest.approx(0.1)
    ratio = (1 - stretched[1:]) / (1 - t[1:])
    torch.testing.assert_close(ratio, ratio[:1].expand(9))
    assert stretch_to_terminal(uniform(1), 0.1).tolist() == [1]


@pytest.mark.parametrize("kind", ["uniform", "linear_quadratic"])
@pytest.mark.parametrize("shift", ["none", "tokens"])
@pytest.mark.parametrize("terminal", [None, 0.1])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 40])
def test_every_schedule_descends_from_one_and_stays_above_zero(kind, shift, terminal, steps: int) -> None:
    times = Schedule(kind=kind, shift=shift, terminal=terminal).times(steps, 2048)
    assert times.shape == (steps,)
    assert times.dtype == torch.float32
    assert times[0] == 1
    assert times[-1] > 0
    assert (times.diff() < 0).all()
    if terminal is not None and steps > 1:
        assert times[-1] == pytest.approx(terminal)


def test_the_shift_of_a_schedule_follows_the_token_count() -> None:
    schedule = Schedule(kind="uniform", shift="tokens")
    assert (schedule.times(8, 4096)[1:] > schedule.times(8, 1024)[1:]).all()
    torch.testing.assert_close(schedule.times(8, 4096), sd3_shift(uniform(8), 2.05))
    torch.testing.assert_close(Schedule(kind="uniform").times(8, 4096), uniform(8))


def test_no_steps_are_refused() -> None:
    for make in (uniform, linear_quadratic):
        with pytest.raises(RequestError, match="at least 1 step"):
            make(0)


@pytest.mark.parametrize(("mu", "std"), [(0.0, 1.0), (0.95, 1.0), (2.05, 1.0), (-1.0, 0.5)])
def test_training_times_follow_the_density_with_its_tails_held_up(mu: float, std: float) -> None:
    t = np.sort(sample_logit_normal(40_000, mu, std, torch.Generator().manual_seed(0)).double().numpy())
    assert t[0] >= 0
    assert t[-1] <= 1

    # the density on a fine grid, percentiles found by summing it, tails flattened, then summed again
    grid = (np.arange(1_000_000) + 0.5) / 1_000_000
    logit = np.log(grid / (1 - grid))
    pdf = np.exp(-((logit - mu) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi) * grid * (1 - grid))
    cdf = np.cumsum(pdf) / 1_000_000
    low, high = np.searchsorted(cdf, [0.005, 0.999])
    pdf[:low], pdf[high:] = pdf[low], pdf[high]
    cdf = np.cumsum(pdf) / pdf.sum()

    empirical = (np.arange(len(t)) + 0.5) / len(t)
    distance = np.abs(np.interp(t, grid, cdf) - empirical).max()
    assert distance < 1.63 / math.sqrt(len(t))  # Kolmogorov-Smirnov, 1 %


def test_no_end_of_the_training_times_starves() -> None:
    t = sample_logit_normal(200_000, 2.05, generator=torch.Generator().manual_seed(0))
    unclamped = torch.sigmoid(2.05 + torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert (t < 0.1).sum() > 10 * (unclamped < 0.1).sum().clamp(min=1)


def test_training_times_repeat_with_the_generator() -> None:
    first, second = (sample_logit_normal(8, 1.0, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(second)


def test_constant_times_are_uniform_ones_shifted_by_mu() -> None:
    times = Schedule(kind="constant", constant_mu=1.5).times(8, 100)
    torch.testing.assert_close(times, sd3_shift(uniform(8), 1.5))


def test_the_resolution_shift_scales_the_signal_to_noise_ratio_by_the_squared_token_ratio() -> None:
    plain, shifted = uniform(5)[1:].double(), Schedule(kind="uniform", shift="resolution").times(5, 4096)[1:].double()
    ratio = ((shifted / (1 - shifted)) / (plain / (1 - plain))) ** 2
    torch.testing.assert_close(ratio, torch.full_like(ratio, (4096 / 1024) ** 2), rtol=1e-5, atol=0)


def test_skipping_keeps_the_middle_and_refuses_to_leave_nothing() -> None:
    times = uniform(10)
    assert part_of(times, 2, 3).tolist() == times[2:7].tolist()
    assert part_of(times).equal(times)
    with pytest.raises(RequestError, match="leaves none"):
        part_of(times, 7, 3)


def test_the_other_reading_of_the_clamp_moves_the_percentiles_to_the_ends() -> None:
    """Compared with the recipe of the other reading, written out: stretched, reflected, one in ten uniform."""
    mu, count = 2.05, 200_000
    found = sample_logit_normal(count, mu, generator=torch.Generator().manual_seed(0), tails="stretched")
    rng = np.random.default_rng(0)
    x = 1 / (1 + np.exp(-rng.normal(mu, 1.0, count)))
    low, high = (1 / (1 + math.exp(-(mu + z))) for z in (-2.5758293, 3.0902323))
    y = (x - low) / (high - low)
    y = np.clip(np.where(y < 1e-3, 2e-3 - y, y), 0, 1)
    expected = np.sort(np.where(rng.random(count) < 0.1, rng.uniform(1e-3, 1, count), y))
    assert np.abs(np.sort(found.numpy()) - expected).mean() < 0.003


def test_the_readings_differ_most_at_the_clean_end_of_large_videos() -> None:
    shares = {
        tails: (sample_logit_normal(200_000, 2.78, generator=torch.Generator().manual_seed(0), tails=tails) < 0.1)
        .float()
        .mean()
        for tails in ("flat", "stretched", "none")
    }
    assert shares["none"] < 1e-5 < shares["flat"] < 0.01 < shares["stretched"] < 0.02
