"""The processes of one run, as torchrun starts them; a process that was started by itself is a group of one.

    torchrun --nproc-per-node 2 -m openltx train vae playroom ...

Every rank has all weights and trains on its own batches; gradients are averaged by DistributedDataParallel. Rank 0
alone writes files. The functions here may be called by a single process too, where they do nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@contextmanager
def process_group() -> Iterator[None]:
    """Within the block the processes that torchrun started can talk: over NCCL with CUDA, over gloo without."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of every rank's tensor; all ranks must call it."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()


def from_all_ranks(value: T) -> list[T]:
    """Every rank's value (any small Python object), in the order of the ranks; all ranks must call it."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # every place is filled now


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if world_size() > 1:
        dist.barrier()
