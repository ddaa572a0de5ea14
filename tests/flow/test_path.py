import torch

from openltx.flow.path import TokenState, clean_estimate, interpolate, velocity


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    clean, noise = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    return clean, noise


def test_the_path_starts_at_the_data_and_ends_at_the_noise() -> None:
    clean, noise = sample()
    torch.testing.assert_close(interpolate(clean, noise, torch.zeros(3)), clean)
    torch.testing.assert_close(interpolate(clean, noise, torch.ones(3)), noise)


def test_velocity_is_the_derivative_of_the_path() -> None:
    clean, noise = (x.double() for x in sample())
    t = torch.rand(3, dtype=torch.float64)
    slope = (interpolate(clean, noise, t + 1e-3) - interpolate(clean, noise, t - 1e-3)) / 2e-3
    torch.testing.assert_close(slope, velocity(clean, noise))


def test_clean_estimate_undoes_the_path_with_a_time_per_sample_or_per_token() -> None:
    clean, noise = sample()
    for t in (torch.rand(3), torch.rand(3, 4)):
        x_t = interpolate(clean, noise, t)
        torch.testing.assert_close(clean_estimate(x_t, velocity(clean, noise), t), clean)


def test_a_condition_of_strength_s_never_has_a_time_above_1_minus_s() -> None:
    zeros = torch.zeros(2, 3, 1)
    strength = torch.tensor([[1.0, 0.25, 0.0]]).expand(2, -1)
    state = TokenState(zeros, zeros, strength, torch.zeros(2, 3, 3), 3)
    assert state.effective_t(1.0).tolist() == [[0.0, 0.75, 1.0]] * 2
    assert state.effective_t(torch.tensor([0.5, 0.9])).tolist() == [
        [0.0, 0.5, 0.5],
        torch.tensor([0.0, 0.75, 0.9]).tolist(),
    ]


def test_targets_leave_out_the_extra_tokens_in_front() -> None:
    tokens = torch.arange(5.0).reshape(1, 5, 1)
    state = TokenState(tokens, tokens, torch.zeros(1, 5), torch.zeros(1, 3, 5), 3)
    assert state.targets.flatten().tolist() == [2.0, 3.0, 4.0]
