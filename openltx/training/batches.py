"""The batches of a run in order, made one ahead of their use."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from openltx.training.config import RunConfig


class Batches:
    """Batches in order, the next one being made in a background thread while the present one is used."""

    def __init__(self, make: Callable[[int, int], object], config: RunConfig, first_step: int) -> None:
        self.make = make
        self.config = config
        self.pool = ThreadPoolExecutor(1, "batches") if config.prefetch else None
        self.pending: Future[object] | None = None
        self.next = (first_step, 0)

    def __enter__(self) -> "Batches":
        self._prepare_next()
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def of_step(self, index: int) -> Iterator[object]:
        """The `accumulate` batches of a step; steps must be asked for in order."""
        for micro in range(self.config.accumulate):
            assert self.next == (index, micro), f"batch {(index, micro)} asked for, {self.next} is next"
            batch = self.pending.result() if self.pending is not None else self.make(index, micro)
            self.next = (index, micro + 1) if micro + 1 < self.config.accumulate else (index + 1, 0)
            self._prepare_next()
            yield batch

    def _prepare_next(self) -> None:
        if self.pool is not None and self.next[0] < self.config.steps:
            self.pending = self.pool.submit(self.make, *self.next)
