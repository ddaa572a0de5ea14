"""The processes of one run, as torchrun starts them; a process that was started by itself is a group of one.

    torchrun --nproc-per-node 2 -m openltx train vae playroom ...

Every rank trains on its own batches, or a few neighbouring ranks on one (``sequence``); gradients are averaged over
all. Rank 0 writes files. The functions here may be called by a single process too, where they do nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from openltx.errors import RunError

T = TypeVar("T")

_sharing = 1  # how many neighbouring ranks take each batch together


@contextmanager
def process_group(sequence: int = 1) -> Iterator[None]:
    """Within the block the processes that torchrun started can talk: over NCCL with CUDA, over gloo without.

    Each ``sequence`` neighbouring ranks take the same batches; RunError unless that divides the number of ranks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        with _shared_by(sequence):
            yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        with _shared_by(sequence):
            yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _shared_by(sequence: int) -> Iterator[None]:
    global _sharing
    if sequence < 1 or world_size() % sequence:
        raise RunError(
            f"{world_size()} processes cannot form groups of {sequence} that share the tokens of a video: start a "
            f"multiple of {sequence} with torchrun, or choose another sequence."
        )
    former, _sharing = _sharing, sequence
    try:
        yield
    finally:
        _sharing = former


def batch_place() -> tuple[int, int]:
    """Which of the groups that take a batch each this process is in, and how many groups there are."""
    return rank() // _sharing, world_size() // _sharing


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


def is_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether these are pieces of tensors that lie on several ranks (``distributed.shard``)."""
    return any(hasattr(parameter, "full_tensor") for parameter in parameters)


def whole(value: Tensor) -> Tensor:
    """A tensor of which every rank may have a piece, as a whole; all ranks must call it."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def piece_like(pieces: Tensor, value: Tensor) -> Tensor:
    """This rank's piece of ``value``, which every rank has whole, laid out as ``pieces``; the inverse of ``whole``."""
    if not is_sharded([pieces]):
        return value
    from torch.distributed.tensor import DTensor, Replicate  # slow to import, and needed by sharded runs only

    assert isinstance(pieces, DTensor)
    everywhere = [Replicate()] * pieces.device_mesh.ndim
    return DTensor.from_local(value, pieces.device_mesh, everywhere).redistribute(placements=pieces.placements)
