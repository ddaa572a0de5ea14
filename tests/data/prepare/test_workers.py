"""Runners: results are the same whoever works, and a worker's death costs one piece of work at most."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from openltx.data.prepare.workers import Crash, Processes


@dataclass(frozen=True)
class Double:
    """Twice the number; dies on some, always or the first time."""

    deadly: int | None = None
    deadly_once: int | None = None
    marks: Path = Path()
    uses_network: bool = False

    def __call__(self, item: int) -> int:
        if item == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        mark = self.marks / "dead"
        if item == self.deadly_once and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * item


def test_steps_follow_each_other_in_one_process_and_in_two() -> None:
    for runner in (Processes(1), Processes(2)):
        assert dict(runner.run([Double(), Double()], range(5))) == {i: 4 * i for i in range(5)}


def test_an_item_that_kills_its_process_is_given_up_and_the_others_are_not() -> None:
    results = dict(Processes(2).run([Double(deadly=3)], range(8)))
    assert results == {i: Crash() if i == 3 else 2 * i for i in range(8)}


def test_ray_gives_the_same_and_survives_a_killed_worker(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from openltx.data.prepare.ray_workers import RayWorkers

    try:
        step = Double(deadly_once=3, marks=tmp_path)
        results = dict(RayWorkers(2).run([step, Double(uses_network=True)], range(8)))
    finally:
        ray.shutdown()
    assert (tmp_path / "dead").exists()
    assert results == {i: 4 * i for i in range(8)}
