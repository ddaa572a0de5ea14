"""Whole adversarial runs in processes of their own: killed and started again, and shared by two ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("adversarial_run.py")
TIMES = ("seconds", "step_seconds")


def start(clips: Path, out: Path, steps: int, accumulate: int, *launcher: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, str(SCRIPT), str(clips), str(out), str(steps), str(accumulate)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def curve(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert start(clip_folder, out, 9, 2).wait() == 0
    return curve(out)


def test_a_run_killed_in_the_adversarial_phase_repeats_the_uninterrupted_one_to_the_bit(
    clip_folder: Path, tmp_path: Path, uninterrupted: list[dict[str, float]]
) -> None:
    process = start(clip_folder, tmp_path, 9, 2)
    log, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline, "the process does not train"
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed_at = len(curve(tmp_path))
    assert 5 <= killed_at < 9
    assert "critic/loss" in curve(tmp_path)[-1]
    assert start(clip_folder, tmp_path, 9, 2).wait() == 0
    assert curve(tmp_path) == uninterrupted


def test_two_ranks_train_as_one_process_that_takes_their_batches_in_turn(
    clip_folder: Path, tmp_path: Path, uninterrupted: list[dict[str, float]]
) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert start(clip_folder, tmp_path, 9, 2, *torchrun).wait() == 0
    shared = curve(tmp_path)
    assert [line.keys() for line in shared] == [line.keys() for line in uninterrupted]
    for one, other in zip(shared, uninterrupted, strict=True):
        for name, value in other.items():
            assert one[name] == pytest.approx(value, rel=1e-3, abs=1e-6), (other["step"], name)


def test_ranks_that_cannot_share_the_batches_of_a_step_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = subprocess.run(
        [sys.executable, *torchrun, str(SCRIPT), str(clip_folder), str(tmp_path), "2", "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert "2 processes cannot share the 3 batches of a step" in process.stderr
