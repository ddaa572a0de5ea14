"""A run that is interrupted in any way and started again is the uninterrupted run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openltx.errors import RunError
from openltx.training import loop, metrics, state
from openltx.training.config import OptimConfig
from openltx.training.loop import run
from openltx.training.metrics import read_json_lines
from openltx.training.state import list_checkpoints, load_weights


def curve(out: Path) -> list[dict[str, float]]:
    """Everything logged except times."""
    lines = [*read_json_lines(out / "metrics.jsonl"), *read_json_lines(out / "evaluations.jsonl")]
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    last, also_last = list_checkpoints(one)[-1], list_checkpoints(other)[-1]
    assert last.name == also_last.name
    for part in ("module", "ema", "optimizer"):
        expected, found = load_file(last / f"{part}.safetensors"), load_file(also_last / f"{part}.safetensors")
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert run(toy.ToyTask(), toy.toy_config(out)).reason == "finished"
    assert [line["step"] for line in read_json_lines(out / "metrics.jsonl")] == list(range(1, 21))
    return out


def test_killed_process_started_again_repeats_the_uninterrupted_run(toy, tmp_path: Path, uninterrupted: Path):
    script = Path(__file__).with_name("toy_task.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "20", "0.1"], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    log = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline, "the process does not train"
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 5 <= len(read_json_lines(log)) < 20
    run(toy.ToyTask(), toy.toy_config(tmp_path))
    assert_same_run(uninterrupted, tmp_path)


class Crash(BaseException):
    """The moment in which the power fails."""


def crash_at_call(count: int, function: Callable[..., object]) -> Callable[..., object]:
    """`function`, until its call number `count`."""
    calls = [0]

    def crashing(*args: object, **settings: object) -> object:
        calls[0] += 1
        if calls[0] == count:
            raise Crash
        return function(*args, **settings)

    return crashing


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [
        (state, "save_file", 8),  # between the files of the third checkpoint
        (state, "_sync", 9),  # before the second checkpoint gets its name
        (state, "_remove", 1),  # after it, before the first is removed
        (state.shutil, "rmtree", 1),  # while an old one is removed
        (metrics.JsonLines, "write", 12),  # between a step and its line
        (metrics.JsonLines, "sync", 3),  # before a checkpoint
        (loop, "seed_global_generators", 7),
        (loop.PhaseOptimizer, "step", 11),
    ],
)
def test_crash_anywhere_leaves_a_run_that_goes_on_exactly(
    toy, tmp_path: Path, uninterrupted: Path, monkeypatch, owner: object, name: str, count: int
):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash_at_call(count, getattr(owner, name)))
        with pytest.raises(Crash):
            run(toy.ToyTask(), toy.toy_config(tmp_path))
    run(toy.ToyTask(), toy.toy_config(tmp_path))
    assert_same_run(uninterrupted, tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_half_written_log_line_is_cut_off(toy, tmp_path: Path, uninterrupted: Path):
    run(toy.ToyTask(), toy.toy_config(tmp_path, max_seconds=0.0))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "fit/lo')
    run(toy.ToyTask(), toy.toy_config(tmp_path))
    assert_same_run(uninterrupted, tmp_path)


def test_cadence_of_samples_checkpoints_and_prefetching_does_not_change_what_is_learned(
    toy, tmp_path: Path, uninterrupted: Path
):
    config = toy.toy_config(
        tmp_path, sample_every=2, sample_weights="both", checkpoint_every=None, log_every=5, prefetch=False
    )
    run(toy.ToyTask(), config)
    steps = {line["step"]: line["fit/loss"] for line in read_json_lines(uninterrupted / "metrics.jsonl")}
    logged = {line["step"]: line["fit/loss"] for line in read_json_lines(tmp_path / "metrics.jsonl")}
    assert logged == {step: steps[step] for step in (5, 10, 15, 20)}
    weights = load_weights(tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in load_weights(uninterrupted).items())


def test_changed_settings_are_refused_by_name_unless_allowed(toy, tmp_path: Path):
    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=3))
    changed = OptimConfig(**{**vars(toy.MUON), "lr": 0.5})
    with pytest.raises(RunError, match=r"optim\.fit\.lr was 0\.01 and is 0\.5; run\.seed was 0 and is 1"):
        run(toy.ToyTask(changed), toy.toy_config(tmp_path, steps=3, seed=1))
    outcome = run(toy.ToyTask(changed), toy.toy_config(tmp_path, steps=5, seed=1), allow_changes=True)
    assert outcome.step == 5


def test_free_settings_may_change_on_resume(toy, tmp_path: Path):
    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=3))
    config = toy.toy_config(tmp_path, steps=3, keep_last=1, log_every=2, max_seconds=9.0, checkpoint_every_seconds=1.0)
    assert run(toy.ToyTask(), config).reason == "finished"


def test_steps_may_change_exactly_while_past_learning_rates_stay_the_same(toy, tmp_path: Path):
    constant = OptimConfig(kind="muon", lr=0.01, muon_lr=0.02)
    run(toy.ToyTask(constant), toy.toy_config(tmp_path / "constant", steps=4))
    assert run(toy.ToyTask(constant), toy.toy_config(tmp_path / "constant", steps=6)).step == 6
    with pytest.raises(RunError, match="at step 7"):
        run(toy.ToyTask(broken_at=7), toy.toy_config(tmp_path / "warm", steps=10))
    assert run(toy.ToyTask(), toy.toy_config(tmp_path / "warm", steps=20)).step == 20
    run(toy.ToyTask(), toy.toy_config(tmp_path / "cooled", steps=10))
    with pytest.raises(RunError, match=r"run\.steps was 10 and is 20"):
        run(toy.ToyTask(), toy.toy_config(tmp_path / "cooled", steps=20))


def test_new_run_refuses_a_folder_with_a_run(toy, tmp_path: Path):
    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=3))
    with pytest.raises(RunError, match="already holds a run"):
        run(toy.ToyTask(), toy.toy_config(tmp_path, steps=3), resume="new")


def test_damaged_checkpoint_is_named(toy, tmp_path: Path):
    run(toy.ToyTask(), toy.toy_config(tmp_path, steps=3))
    module = list_checkpoints(tmp_path)[-1] / "module.safetensors"
    module.write_bytes(module.read_bytes()[:-10])
    with pytest.raises(RunError, match="step_00000003 is damaged"):
        run(toy.ToyTask(), toy.toy_config(tmp_path, steps=6))


def test_second_run_in_the_same_folder_is_refused(toy, tmp_path: Path):
    with state.exclusive_run(tmp_path), pytest.raises(RunError, match="another run"):
        run(toy.ToyTask(), toy.toy_config(tmp_path))
