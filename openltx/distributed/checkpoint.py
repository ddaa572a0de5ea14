"""Checkpoints that every rank writes its own pieces of: torch.distributed.checkpoint, stored as safetensors.

    shard-00001-model-00001-of-00001.safetensors    the pieces of the first rank, with their places in the header
    shard-00002-...                                 those of the second

Read on any number of ranks, also on one alone: what a rank needs is taken from whichever files hold it. All ranks must
see the same folder.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from openltx.errors import RunError


def save_pieces(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write each rank's pieces of ``tensors`` into ``folder``; all ranks must call it, with the same names."""
    dcp.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load_pieces(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill ``tensors`` in place with what ``folder`` holds of their names; all ranks must call it."""
    try:
        dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)))
    except CheckpointException as error:
        raise RunError(f"the checkpoint {folder} is damaged or of another model: {error}") from error


def stored_tensors(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of every whole tensor in ``folder``; RunError if a file of it is damaged."""
    try:
        stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the checkpoint {folder} is damaged ({error}); delete it to go on from the one before"
        ) from error
    return {
        name: (meta.size, meta.properties.dtype)
        for name, meta in stored.items()
        if isinstance(meta, TensorStorageMetadata)
    }


def load_whole(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The whole tensors whose names begin with ``prefix``, without it; for one process."""
    names = {name: kind for name, kind in stored_tensors(folder).items() if name.startswith(prefix)}
    tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in names.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
