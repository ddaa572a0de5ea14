import pytest
import torch
from torch import Tensor

from openltx.flow.path import TokenState, interpolate
from openltx.flow.schedule import linear_quadratic, uniform
from openltx.flow.solvers import euler

B, N, C = 2, 6, 3


def start(strength: float = 0.0) -> tuple[TokenState, Tensor, Tensor]:
    """The state at t = 1 (tokens 0 and 1 conditioned), its data and its noise."""
    clean, noise = torch.randn(2, B, N, C, generator=torch.Generator().manual_seed(0))
    strengths = torch.zeros(B, N)
    strengths[:, :2] = strength
    state = TokenState(interpolate(clean, noise, 1 - strengths), clean, strengths, torch.zeros(B, 3, N), N)
    return state, clean, noise


@pytest.mark.parametrize("times", [uniform(1), uniform(7), linear_quadratic(8)])
def test_a_constant_velocity_is_integrated_exactly(times: Tensor) -> None:
    state, clean, noise = start()
    steps = list(euler(lambda _state, _t: noise - clean, state, times))
    assert [step.t for step in steps] == times.tolist()
    assert steps[-1].t_next == 0
    torch.testing.assert_close(steps[-1].state.tokens, clean)
    for step in steps:
        torch.testing.assert_close(step.clean, clean)
        torch.testing.assert_close(step.state.tokens, interpolate(clean, noise, torch.full((B,), step.t_next)))


def test_smaller_steps_come_closer_to_the_true_flow() -> None:
    # dx/dt = x from t = 1 down to 0 divides x by e
    state, _, _ = start()
    expected = state.tokens / torch.e
    errors = []
    for n in (8, 16, 32):
        *_, last = euler(lambda state, _t: state.tokens, state, uniform(n))
        errors.append(float((last.state.tokens - expected).abs().max()))
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_tokens_of_full_strength_are_never_touched_and_the_others_are() -> None:
    state, clean, noise = start(strength=1.0)
    for step in euler(lambda state, _t: state.tokens + 1, state, uniform(5)):
        assert step.state.tokens[:, :2].equal(clean[:, :2])
        assert step.clean[:, :2].equal(clean[:, :2])
    *_, last = euler(lambda _state, _t: noise - clean, state, uniform(5))
    torch.testing.assert_close(last.state.tokens[:, 2:], clean[:, 2:])


def test_tokens_of_partial_strength_wait_for_their_time() -> None:
    state, _, _ = start(strength=0.5)
    steps = euler(lambda state, _t: torch.ones_like(state.tokens), state, uniform(10))
    moved = [not step.state.tokens[:, :2].equal(state.tokens[:, :2]) for step in steps]
    assert moved == [False] * 5 + [True] * 5  # the steps from 1, .9, .8, .7, .6 pass them by


def test_stop_at_ends_there_and_leaves_the_rest_to_the_decoder() -> None:
    state, clean, noise = start()
    steps = list(euler(lambda _state, _t: noise - clean, state, uniform(10), stop_at=0.15))
    assert [round(step.t, 4) for step in steps] == [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert steps[-1].t_next == 0.15
    assert all(step.total == 9 for step in steps)
    torch.testing.assert_close(steps[-1].state.tokens, interpolate(clean, noise, torch.full((B,), 0.15)))


def test_stop_at_a_time_of_the_schedule_makes_no_empty_step() -> None:
    state, clean, noise = start()
    steps = list(euler(lambda _state, _t: noise - clean, state, uniform(10), stop_at=0.2))
    assert len(steps) == 8
    assert steps[-1].t == pytest.approx(0.3)


def test_the_caller_keeps_its_gradients_while_it_looks_at_steps() -> None:
    state, clean, noise = start()
    for step in euler(lambda _state, _t: noise - clean, state, uniform(3)):
        assert torch.is_grad_enabled()
        assert not step.state.tokens.requires_grad


def test_stochastic_steps_start_anew_from_the_clean_estimate() -> None:
    state, clean, noise = start()
    fresh = torch.randn(B, N, C, generator=torch.Generator().manual_seed(5))
    steps = list(euler(lambda _state, _t: noise - clean, state, uniform(4), renew=lambda _: fresh))
    torch.testing.assert_close(steps[0].state.tokens, interpolate(clean, fresh, torch.full((B,), 0.75)))
    torch.testing.assert_close(steps[-1].clean, steps[-1].state.tokens)


def test_stochastic_steps_leave_held_tokens_alone() -> None:
    state, clean, _ = start(strength=1.0)
    for step in euler(lambda state, _t: state.tokens, state, uniform(3), renew=torch.randn_like):
        assert step.state.tokens[:, :2].equal(clean[:, :2])


def test_jitter_moves_only_held_tokens_by_a_noise_that_fades_with_t_squared() -> None:
    state, clean, _ = start(strength=1.0)
    seen = []

    def velocity(state: TokenState, t: float) -> Tensor:
        seen.append((t, state.tokens))
        return torch.zeros_like(state.tokens)

    list(euler(velocity, state, uniform(4), jitter=(0.15, torch.ones_like)))
    for t, tokens in seen:
        torch.testing.assert_close(tokens[:, :2], clean[:, :2] + 0.15 * t**2)
        assert tokens[:, 2:].equal(state.tokens[:, 2:])
