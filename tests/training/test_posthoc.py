"""Averages whose length is chosen after the run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from openltx.errors import DivergedError, RunError
from openltx.training.loop import run
from openltx.training.posthoc import LENGTHS, PowerAverages, averaged_weights, combination, gamma_of
from openltx.training.state import list_checkpoints


@pytest.mark.parametrize("length", [0.05, 0.1, 0.2])
def test_a_profile_has_the_standard_deviation_that_names_it(length: float) -> None:
    gamma, tau = gamma_of(length), (np.arange(1_000_000) + 0.5) / 1_000_000
    weight = tau**gamma / (tau**gamma).sum()
    mean = (weight * tau).sum()
    assert ((weight * (tau - mean) ** 2).sum()) ** 0.5 == pytest.approx(length, rel=1e-3)


def test_a_stored_profile_is_combined_from_itself_alone() -> None:
    stored = [(step, gamma_of(length)) for step in (100, 200, 300) for length in LENGTHS]
    assert combination(stored, stored[3]) == pytest.approx([0, 0, 0, 1, 0, 0], abs=1e-6)


def wandering(steps: int) -> torch.Tensor:
    """A smooth path with noise on it."""
    generator = torch.Generator().manual_seed(0)
    time = torch.linspace(0, 1, steps)
    return torch.stack([(3 * time).sin(), time**2, 1 - time], 1) + 0.05 * torch.randn(steps, 3, generator=generator)


@pytest.mark.parametrize("length", [0.07, 0.15])
def test_another_length_is_combined_from_what_was_stored(tmp_path: Path, length: float) -> None:
    steps, module = 400, nn.Linear(3, 1, bias=False)
    averages, path = PowerAverages(module), wandering(400)
    exact, gamma = torch.zeros(3), gamma_of(length)
    for step in range(steps):
        with torch.no_grad():
            module.weight.copy_(path[step])
        averages.update(step)
        exact = torch.lerp(exact, path[step], 1 - (1 - 1 / (step + 1)) ** (gamma + 1))
        if (step + 1) % 25 == 0:
            averages.store(tmp_path, step + 1)
    found = averaged_weights(tmp_path, length)["weight"][0]
    nearest = averages.averages[min(LENGTHS, key=lambda known: abs(known - length))]["weight"][0]
    assert (found - exact).norm() < 0.01
    assert (found - exact).norm() < 0.3 * (nearest - exact).norm()


def test_the_averages_of_a_resumed_run_are_those_of_the_whole_one(toy, tmp_path: Path) -> None:
    run(toy.ToyTask(), toy.toy_config(tmp_path / "whole", posthoc_every=5))
    with pytest.raises(DivergedError):  # after the checkpoint of step 12
        run(toy.ToyTask(broken_at=13), toy.toy_config(tmp_path / "parts", posthoc_every=5))
    run(toy.ToyTask(), toy.toy_config(tmp_path / "parts", posthoc_every=5))
    names = [path.name for path in sorted((tmp_path / "whole" / "averages").iterdir())]
    assert names == [f"step_{step:08d}.safetensors" for step in (5, 10, 15, 20)]
    for name in names:
        one, other = (tmp_path / part / "averages" / name for part in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes()
    weights = averaged_weights(tmp_path / "whole", 0.1)
    assert weights.keys() == dict(toy.Net().named_parameters()).keys()


def test_a_run_that_kept_no_averages_cannot_begin_to(toy, tmp_path: Path) -> None:
    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=3))
    assert list_checkpoints(tmp_path)
    with pytest.raises(RunError, match="kept no averages"):
        run(toy.ToyTask(), toy.toy_config(tmp_path, posthoc_every=5), allow_changes=True)
    with pytest.raises(RunError, match="stored no averages"):
        averaged_weights(tmp_path, 0.1)
