"""Muon against PyTorch's own, state by name, learning-rate schedules, the moving average."""

import copy
import itertools

import pytest
import torch
from torch import nn

from openltx.errors import RunError
from openltx.training.config import OptimConfig
from openltx.training.optim import ExponentialAverage, Muon, PhaseOptimizer, matrices_for_muon, orthogonalise


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (24, 24), (6, 96), (96, 6)])
def test_muon_equals_torch_muon_on_matrices(shape: tuple[int, int]):
    ours, theirs = nn.Parameter(random(*shape)), nn.Parameter(random(*shape))
    config = OptimConfig(kind="muon", lr=0.0, muon_lr=0.02, weight_decay=0.1)
    one = Muon([ours], config)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    for step in range(4):
        ours.grad, theirs.grad = random(*shape, seed=step), random(*shape, seed=step)
        one.step()
        other.step()
    moved = (theirs - random(*shape)).norm()
    assert (ours - theirs).norm() < 0.02 * moved  # both iterate in bfloat16


def test_muon_reads_a_convolution_as_its_flat_matrix_whatever_the_memory_layout():
    config = OptimConfig(kind="muon", lr=0.0, muon_lr=0.02)
    kernels = nn.Parameter(random(6, 4, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d))
    matrix = nn.Parameter(random(6, 4, 3, 3, 3).flatten(1))
    kernels.grad = random(6, 4, 3, 3, 3, seed=1).contiguous(memory_format=torch.channels_last_3d)
    matrix.grad = random(6, 4, 3, 3, 3, seed=1).flatten(1)
    Muon([kernels], config).step()
    Muon([matrix], config).step()
    assert torch.equal(kernels.flatten(1), matrix)


def test_batched_matrices_are_updated_as_singles():
    config = OptimConfig(kind="muon", lr=0.0, muon_lr=0.02)
    together = [nn.Parameter(random(8, 12, seed=index)) for index in range(3)]
    alone = copy.deepcopy(together)
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        one.grad = other.grad = random(8, 12, seed=10 + index)
    Muon(together, config).step()
    for parameter in alone:
        Muon([parameter], config).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 * 0.02)


def test_singular_values_become_alike():
    for shape in ((2, 10, 40), (2, 40, 10), (2, 10, 200)):
        values = torch.linalg.svdvals(orthogonalise(random(*shape)))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_iteration_on_the_gram_matrix_equals_the_plain_one_even_for_small_singular_values():
    scales = torch.logspace(0, -5, 12)[:, None]
    wide = torch.linalg.qr(random(12, 12))[0] @ (scales * random(12, 200, seed=1))
    x = wide.double()[None] / wide.double().norm()
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    torch.testing.assert_close(orthogonalise(wide[None]), x.float(), rtol=0, atol=1e-3)


def test_muon_refuses_vectors_and_an_empty_list():
    with pytest.raises(RunError, match="two or more dimensions"):
        Muon([nn.Parameter(torch.zeros(3))], OptimConfig(lr=0.1))
    with pytest.raises(RunError, match="no parameters are given"):
        PhaseOptimizer({"a": nn.Parameter(torch.zeros(3))}, {}, OptimConfig(kind="muon", lr=0.1))


def test_matrices_for_muon_are_the_inner_weights():
    net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.LayerNorm(4), nn.Linear(4, 5), nn.Embedding(3, 4), nn.Linear(5, 1))
    assert [tuple(weight.shape) for weight in matrices_for_muon(net, exclude=[net[0], net[4]])] == [(5, 4)]


def make_phase(kind: str = "muon") -> tuple[nn.Module, PhaseOptimizer]:
    net = nn.Sequential(nn.Conv3d(2, 3, 3), nn.Linear(3, 3))
    net[0].weight.data = net[0].weight.data.contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.copy_(random(*parameter.shape, seed=index))
    parameters = dict(net.named_parameters())
    config = OptimConfig(kind=kind, lr=0.1, muon_lr=0.1, weight_decay=0.1)  # type: ignore[arg-type]
    return net, PhaseOptimizer(parameters, {"1.weight": parameters["1.weight"]}, config)


def train(net: nn.Module, optimizer: PhaseOptimizer, steps: range) -> None:
    for step in steps:
        for index, parameter in enumerate(net.parameters()):
            parameter.grad = random(*parameter.shape, seed=100 * step + index)
        optimizer.step(step, 10)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_optimizer_state_goes_round_by_name(kind: str):
    net, optimizer = make_phase(kind)
    train(net, optimizer, range(3))
    saved = {name: tensor.clone().contiguous() for name, tensor in optimizer.state_dict().items()}
    assert ("momentum:1.weight" in saved) == (kind == "muon")
    other, fresh = make_phase(kind)
    other.load_state_dict(net.state_dict())
    fresh.load_state_dict(saved)
    train(net, optimizer, range(3, 6))
    train(other, fresh, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_foreign_optimizer_state_is_refused():
    _, optimizer = make_phase()
    with pytest.raises(RunError, match=r"exp_avg:2\.weight"):
        optimizer.load_state_dict({"exp_avg:2.weight": torch.zeros(3, 3)})


def test_weight_decay_spares_vectors():
    net, optimizer = make_phase()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0, 10)
    decayed = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert decayed == [True, False, True, False]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "trapezoid"])
def test_schedules_rise_stay_within_bounds_and_end_low(schedule: str):
    config = OptimConfig(lr=1.0, schedule=schedule, warmup=10, cooldown=0.25, final_ratio=0.1)  # type: ignore[arg-type]
    rates = [config.rate(step, 100) for step in range(100)]
    assert rates[0] < rates[5] < rates[9]
    assert rates[9] == pytest.approx(1.0, abs=0.02)
    assert all(0.0 < rate <= 1.0 for rate in rates)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == (1.0 if schedule == "constant" else pytest.approx(0.12, abs=0.03))
    if schedule == "trapezoid":
        assert rates[10:75] == [1.0] * 65
        assert rates[75] < 1.0


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "trapezoid"])
def test_a_short_run_learns_although_its_warmup_is_long(schedule: str):
    config = OptimConfig(lr=1.0, schedule=schedule, warmup=50)  # type: ignore[arg-type]
    rates = [config.rate(step, 8) for step in range(8)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(rate > 0 for rate in rates)
    assert OptimConfig(lr=1.0, warmup=3).rate(0, 1) == 1.0


def test_moving_average_follows_its_recurrence_and_forgets_the_start():
    net = nn.Linear(2, 2)
    ema = ExponentialAverage(net, 0.5)
    expected = net.weight.detach().clone()
    for step in range(20):
        with torch.no_grad():
            net.weight.copy_(random(2, 2, seed=step))
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * net.weight.detach()
    raw = net.weight.detach().clone()
    with ema.applied():
        torch.testing.assert_close(net.weight, expected)
    assert torch.equal(net.weight, raw)
