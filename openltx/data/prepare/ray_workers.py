"""The same work on Ray Data: on one machine or a cluster that sees the same files.

Each step becomes actors of its own, on CPUs to decode, on GPUs for networks where there are any. Ray streams the items
through them, holds back what the next step cannot take yet, and gives the work of an actor that dies to another one.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openltx.data.prepare.workers import Step
from openltx.errors import DataError


@dataclass(frozen=True)
class RayWorkers:
    """So many decoding actors, and one actor for each GPU (or one on a CPU) for each step that is a network.

    A Ray that runs already (``RAY_ADDRESS``) is used; otherwise one is started here.
    """

    workers: int

    def run(self, steps: Sequence[Step], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        if not items:
            return
        ray = _ray(self.workers)
        data = ray.data.from_items(
            [{"index": index, "value": pickle.dumps(item)} for index, item in enumerate(items)],
            override_num_blocks=len(items),
        )
        gpus = int(ray.cluster_resources().get("GPU", 0))
        for step in steps:
            on_gpu = step.uses_network and gpus > 0
            data = data.map(
                _Worker,
                fn_constructor_args=(step,),
                compute=ray.data.ActorPoolStrategy(size=max(gpus, 1) if step.uses_network else self.workers),
                **({"num_gpus": 1} if on_gpu else {"num_cpus": 1}),
            )
        for row in data.iter_rows():
            yield int(row["index"]), pickle.loads(row["value"])


class _Worker:
    """A step in an actor; values travel as bytes, which Ray keeps in shared memory."""

    def __init__(self, step: Step) -> None:
        import torch

        torch.set_num_threads(1)
        self._step = step

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"index": row["index"], "value": pickle.dumps(self._step(pickle.loads(row["value"])))}


def _ray(workers: int) -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DataError(f'--ray needs Ray ({error}): pip install "openltx[ray]"') from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_worker_niceness", "0")  # on one machine there is nobody to be nice to
        cores = {} if address else {"num_cpus": 2 * workers + 2, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **cores)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
