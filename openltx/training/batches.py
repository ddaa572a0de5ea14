"""The batches of a run in order, made one ahead of their use."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from openltx.distributed import ranks
from openltx.training.config import RunConfig


def my_micros(config: RunConfig) -> range:
    """Which of a step's ``accumulate`` batches this rank takes: every so many-th as there are groups of ranks."""
    place, groups = ranks.batch_place()
    return range(place, config.accumulate, groups)


class Batches:
    """This rank's batches in order, the next one being made in a background thread while the present one is used."""

    def __init__(self, make: Callable[[int, int], object], config: RunConfig, first_step: int) -> None:
        self.make = make
        self.config = config
        self.pool = ThreadPoolExecutor(1, "batches") if config.prefetch else None
        self.pending: Future[object] | None = None
        self.micros = my_micros(config)
        self.next = (first_step, self.micros[0])

    def __enter__(self) -> "Batches":
        self._prepare_next()
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def of_step(self, index: int) -> Iterator[object]:
        """The batches of a step; steps must be asked for in order."""
        for micro in self.micros:
            assert self.next == (index, micro), f"batch {(index, micro)} asked for, {self.next} is next"
            batch = self.pending.result() if self.pending is not None else self.make(index, micro)
            following = micro + self.micros.step
            self.next = (index, following) if following in self.micros else (index + 1, self.micros[0])
            self._prepare_next()
            yield batch

    def _prepare_next(self) -> None:
        if self.pool is not None and self.next[0] < self.config.steps:
            self.pending = self.pool.submit(self.make, *self.next)
