"""Who does the work of a pass: this process, several processes, or Ray's actors; the results are the same.

A piece of work that kills its process (a decoder that crashes on a damaged file) is tried once more by itself, and then
given up: the others go on.
"""

import multiprocessing
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol, runtime_checkable

from openltx.data.filling import start_worker


@runtime_checkable  # for the type checks of the tests
class Step(Protocol):
    """A part of the work on an item. ``uses_network``: a neural network does it, on an accelerator if there is one."""

    @property
    def uses_network(self) -> bool: ...

    def __call__(self, item: Any, /) -> Any: ...


@dataclass(frozen=True)
class Crash:
    """In place of a result: the process that worked on it died twice."""


@runtime_checkable  # for the type checks of the tests
class Runner(Protocol):
    """What applies steps to items."""

    def run(self, steps: Sequence[Step], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index of the item, what the steps made of it or ``Crash``), in any order, as they come."""
        ...


@dataclass(frozen=True)
class Processes:
    """So many processes on this machine; with one, this process itself does everything.

    They are started once and do all passes: importing what they need takes seconds.
    """

    workers: int = 1
    _pools: list[ProcessPoolExecutor] = field(default_factory=list, init=False, repr=False, compare=False)

    def run(self, steps: Sequence[Step], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        chain = Chain(tuple(steps))
        if self.workers == 1 or not items:
            yield from ((index, chain(item)) for index, item in enumerate(items))
            return
        waiting = deque(enumerate(items))
        while waiting:
            suspects = yield from self._until_one_dies(chain, waiting)
            for index, item in suspects:
                yield index, _alone(chain, item)

    def _until_one_dies(
        self, chain: "Chain", waiting: deque[tuple[int, Any]]
    ) -> Generator[tuple[int, Any], None, list[tuple[int, Any]]]:
        """Results until nothing waits or a process dies; returns what was being worked on then."""
        running: dict[Future[Any], tuple[int, Any]] = {}
        pool = self._pools.pop() if self._pools else _pool(self.workers)
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self.workers:  # more would only wait in memory
                    running[pool.submit(chain, waiting[0][1])] = waiting[0]
                    waiting.popleft()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield running.pop(future)[0], result
        except BrokenProcessPool:
            pool.shutdown()
            return sorted(running.values(), key=lambda pair: pair[0])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        self._pools.append(pool)
        return []


@dataclass(frozen=True)
class Chain:
    """Steps one after the other."""

    steps: tuple[Step, ...]

    def __call__(self, item: Any) -> Any:
        return reduce(lambda value, step: step(value), self.steps, item)


def _alone(chain: Chain, item: Any) -> Any:
    with _pool(1) as pool:
        try:
            return pool.submit(chain, item).result()
        except BrokenProcessPool:
            return Crash()


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    import torch

    start_worker()
    torch.set_num_threads(1)
