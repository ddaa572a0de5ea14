"""Safetensors files made of tensors of other safetensors files, one tensor at a time and bit for bit.

Nothing is decoded unless another number format is asked for, and no more than one tensor is in memory: a file of 29 GB
is rewritten in as much memory as a small one.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal

import torch

from openltx.checkpoints.header import DTYPE_BYTES, StoredTensor, read_tensors
from openltx.errors import CheckpointError

StoredDtype = Literal["bfloat16", "float32"]

CHUNK = 16 * 2**20
_SPELLED = {"bfloat16": "BF16", "float32": "F32"}


def write_tensors(
    path: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str], dtype: StoredDtype | None = None
) -> None:
    """Write ``path`` with these tensors under these names; floats as ``dtype``, or as they are stored if it is None.

    The VAE's latent statistics stay as they are stored: they are few, and every latent passes through them. Raises
    ``OSError`` and may leave a part of the file: callers write to a temporary one.
    """
    formats = {
        name: _SPELLED[dtype] if dtype and _converts(stored) else stored.dtype for name, stored in tensors.items()
    }
    order = sorted(tensors, key=lambda name: (-DTYPE_BYTES[formats[name]], name))  # aligned, as safetensors wants it
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + _num_values(tensors[name]) * DTYPE_BYTES[formats[name]]
        entries[name] = {"dtype": formats[name], "shape": list(tensors[name].shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with ExitStack() as stack, path.open("wb") as target:
        sources: dict[Path, BinaryIO] = {
            file: stack.enter_context(file.open("rb")) for file in {stored.file for stored in tensors.values()}
        }
        target.write(struct.pack("<Q", len(header)) + header)
        for name in order:
            stored = tensors[name]
            same = formats[name] == stored.dtype
            for piece in _bytes_of(stored, sources[stored.file]) if same else [_converted(stored, str(dtype))]:
                target.write(piece)


def _bytes_of(stored: StoredTensor, source: BinaryIO) -> Iterator[bytes]:
    source.seek(stored.start)
    left = stored.num_bytes
    while left:
        piece = source.read(min(left, CHUNK))
        if not piece:
            raise CheckpointError(f"{stored.file} became shorter while it was read, at {stored.name}.")
        left -= len(piece)
        yield piece


def _converted(stored: StoredTensor, dtype: str) -> bytes:
    tensor = read_tensors({stored.name: stored}, getattr(torch, dtype))[stored.name]
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _converts(stored: StoredTensor) -> bool:
    is_statistic = "per_channel_statistics." in stored.name or stored.name in ("latents_mean", "latents_std")
    return stored.is_floating_point and not is_statistic


def _num_values(stored: StoredTensor) -> int:
    return stored.num_bytes // DTYPE_BYTES[stored.dtype]
