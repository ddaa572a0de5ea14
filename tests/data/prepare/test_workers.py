"""Runners: results are the same whoever works, and a worker's death costs one piece of work at most."""

import os
import signal
from dataclasses import dataclass

from openltx.data.prepare.workers import Crash, Processes


@dataclass(frozen=True)
class Double:
    """Twice the number; dies of one."""

    deadly: int | None = None
    uses_network: bool = False

    def __call__(self, item: int) -> int:
        if item == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * item


def test_steps_follow_each_other_in_one_process_and_in_two() -> None:
    for runner in (Processes(1), Processes(2)):
        assert dict(runner.run([Double(), Double()], range(5))) == {i: 4 * i for i in range(5)}


def test_an_item_that_kills_its_process_is_given_up_and_the_others_are_not() -> None:
    results = dict(Processes(2).run([Double(deadly=3)], range(8)))
    assert results == {i: Crash() if i == 3 else 2 * i for i in range(8)}
