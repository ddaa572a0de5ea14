"""The loop's own laws: accumulation, phases, ways to stop, failures."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from openltx.errors import RunError
from openltx.training.config import OptimConfig
from openltx.training.loop import Phase, run
from openltx.training.metrics import read_json_lines
from openltx.training.optim import ExponentialAverage
from openltx.training.state import list_checkpoints, load_weights


def test_loss_falls(toy, tmp_path: Path):
    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=120, checkpoint_every=None))
    losses = [line["fit/loss"] for line in read_json_lines(tmp_path / "metrics.jsonl")]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_accumulated_batches_equal_one_large_batch(toy, tmp_path: Path):
    class Halves(toy.ToyTask):
        def batch(self, step: int, micro: int) -> torch.Tensor:
            whole = super().batch(step, 0)
            return whole if self.whole else whole.chunk(2)[micro]

        def loss(self, batch: torch.Tensor, step: int, generator: torch.Generator):  # noqa: ARG002 - a task's signature
            net = self.module
            return (net.out(net.middle(net.conv(batch).tanh().flatten(1))) - 1.0).square().mean(), {}

    weights = []
    for whole in (False, True):
        task = Halves(OptimConfig(lr=0.01))
        task.whole = whole
        config = toy.toy_config(tmp_path / str(whole), steps=3, accumulate=1 if whole else 2, autocast="none")
        run(task, config)
        weights.append(task.module.out.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_each_phase_trains_its_own_parameters_only(toy, tmp_path: Path):
    task = toy.ToyTask()
    net = task.module
    seen: list[tuple[str, bool, bool]] = []

    def loss_of(name: str):
        def loss(batch, step, generator):
            seen.append((name, net.conv.weight.requires_grad, net.out.weight.requires_grad))
            sign = 1.0 if name == "down" else -1.0
            return sign * net(batch).float().square().mean(), {}

        return loss

    still = OptimConfig(lr=0.0)
    task.phases = [
        Phase(name="down", parameters=list(net.conv.parameters()), optim=OptimConfig(lr=0.01), loss=loss_of("down")),
        Phase(name="up", parameters=list(net.out.parameters()), optim=still, loss=loss_of("up")),
    ]
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    run(task, toy.toy_config(tmp_path, steps=2, accumulate=1))
    changed = {name.split(".")[0] for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"conv"}
    assert seen == 2 * [("down", True, False), ("up", False, True)]
    line = read_json_lines(tmp_path / "metrics.jsonl")[-1]
    assert {"down/loss", "up/loss", "down/grad_norm", "up/lr"} <= line.keys()


def test_loss_that_is_not_finite_stops_the_run_and_saves_nothing(toy, tmp_path: Path):
    with pytest.raises(RunError, match="the loss of phase 'fit' is inf at step 4"):
        run(toy.ToyTask(broken_at=4), toy.toy_config(tmp_path))
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_00000003"]


def test_stop_file_ends_the_run_with_a_checkpoint_and_is_consumed(toy, tmp_path: Path):
    class Stopping(toy.ToyTask):
        def on_step(self, step: int, average: ExponentialAverage) -> None:  # noqa: ARG002 (the loop's signature)
            if step == 4:
                (tmp_path / "STOP").touch()

    outcome = run(Stopping(), toy.toy_config(tmp_path))
    assert (outcome.step, outcome.reason) == (5, "stop file")
    assert list_checkpoints(tmp_path)[-1].name == "step_00000005"
    assert run(toy.ToyTask(), toy.toy_config(tmp_path)).reason == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(toy, tmp_path: Path, number: signal.Signals, capsys):
    class Signalled(toy.ToyTask):
        def on_step(self, step: int, average: ExponentialAverage) -> None:  # noqa: ARG002 (the loop's signature)
            if step == 1:
                os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    outcome = run(Signalled(), toy.toy_config(tmp_path, progress=True))
    assert (outcome.step, outcome.reason) == (2, "signal")
    assert list_checkpoints(tmp_path)[-1].name == "step_00000002"
    assert signal.getsignal(number) is handler
    assert "stopped (signal) after 2 of 20 steps; the same command goes on" in capsys.readouterr().err


def test_run_ends_at_its_wall_time(toy, tmp_path: Path):
    outcome = run(toy.ToyTask(seconds=0.05), toy.toy_config(tmp_path, steps=1000, max_seconds=0.3))
    assert outcome.reason == "time"
    assert 0 < outcome.step < 20
    assert list_checkpoints(tmp_path)[-1].name == f"step_{outcome.step:08d}"


def test_only_the_newest_checkpoints_are_kept(toy, tmp_path: Path):
    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=10, keep_last=2))
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_00000009", "step_00000010"]


def test_error_in_a_batch_comes_through_the_background_thread(toy, tmp_path: Path):
    class Failing(toy.ToyTask):
        def batch(self, step: int, micro: int) -> torch.Tensor:
            if step == 2:
                raise RunError("no more data")
            return super().batch(step, micro)

    with pytest.raises(RunError, match="no more data"):
        run(Failing(), toy.toy_config(tmp_path))


def test_averaged_and_raw_weights_are_both_saved_and_sampled(toy, tmp_path: Path):
    task = toy.ToyTask()
    run(task, toy.toy_config(tmp_path, steps=14, sample_weights="both"))
    assert task.sampled == [(7, True), (7, False), (14, True), (14, False)]
    norms = read_json_lines(tmp_path / "evaluations.jsonl")
    ema, raw = load_weights(tmp_path), load_weights(list_checkpoints(tmp_path)[-1], "raw")
    assert norms[-2]["ema/norm"] == float(ema["out.weight"].norm())
    assert norms[-1]["raw/norm"] == float(raw["out.weight"].norm()) == float(task.module.out.weight.detach().norm())
    assert not torch.equal(ema["out.weight"], raw["out.weight"])
    assert torch.equal(ema["mean"], raw["mean"])


def test_run_folder_tells_its_settings_and_shows_tensorboard_curves(toy, tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=3, tensorboard=True))
    saved = json.loads((list_checkpoints(tmp_path)[-1] / "run.json").read_text())
    assert saved == json.loads((tmp_path / "run.json").read_text())
    assert saved["settings"] == {"inputs": [2, 4]}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [line["fit/loss"] for line in read_json_lines(tmp_path / "metrics.jsonl")]
    assert [event.value for event in events.Scalars("fit/loss")] == pytest.approx(losses)
