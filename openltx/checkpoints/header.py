"""The header of a safetensors file, read without its tensors, and what can be wrong with such a file.

A safetensors file is the header's length (8 bytes, little endian), the header (JSON: dtype, shape and byte range of
every tensor, and string metadata), then the bytes. So a cut or foreign file is recognised before anything is loaded.
"""

import difflib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openltx.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a file, from the byte ``start`` on; ``dtype`` in safetensors' spelling (BF16, F32, F8_E4M3, ...)."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says about itself: string metadata, and its tensors by stored name."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, StoredTensor]


def read_header(path: Path) -> Header:
    """The header of a safetensors file; raises ``CheckpointError`` if it is missing, damaged or something else."""
    if not path.is_file():
        raise CheckpointError(_missing(path))
    try:
        entries, rest = _parse(path)
        begin = path.stat().st_size - rest
        metadata = entries.pop("__metadata__", None) or {}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        tensors = {
            name: StoredTensor(
                file=path,
                name=name,
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                start=begin + entry["data_offsets"][0],
            )
            for name, entry in entries.items()
        }
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: its safetensors header makes no sense ({error}).") from error
    if end != rest:
        raise CheckpointError(
            f"{path} is {'cut short' if rest < end else 'damaged'}: its header promises {end:,} bytes of tensors, and "
            f"{rest:,} are there. Download or copy it again."
        )
    return Header(path=path, metadata=metadata, tensors=tensors)


def read_tensors(
    tensors: Mapping[str, StoredTensor], dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """The tensors themselves under the names of ``tensors``, floating ones as ``dtype`` if one is given."""
    from safetensors import safe_open

    loaded = {}
    for file in sorted({stored.file for stored in tensors.values()}):
        with safe_open(file, framework="pt", device=str(device or "cpu")) as source:
            for name, stored in tensors.items():
                if stored.file == file:
                    tensor = source.get_tensor(stored.name)
                    loaded[name] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    return loaded


def _parse(path: Path) -> tuple[dict[str, Any], int]:
    """The header's JSON, and how many bytes follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        _refuse_foreign(path, start, size)
        (length,) = struct.unpack("<Q", start)
        if length > size - 8:
            raise CheckpointError(
                f"{path} is no safetensors file, or is cut short within its header ({size:,} bytes are there). "
                "Download or copy it again."
            )
        try:
            entries = json.loads(file.read(length))
        except ValueError as error:
            raise CheckpointError(f"{path} is no safetensors file: its header is not JSON.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} is no safetensors file: its header is not a JSON object.")
    return entries, size - 8 - length


def _refuse_foreign(path: Path, start: bytes, size: int) -> None:
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise CheckpointError(
            f"{path} is a pickle, as .ckpt, .pt, .pth and .bin files are. Loading one can run any code that its maker "
            "put in, so openltx never does. Use the .safetensors file of the same model."
        )
    if start.startswith(b"version "):
        raise CheckpointError(
            f"{path} is a Git LFS pointer and not the weights. Run `git lfs pull` where you cloned it, or download "
            "the file itself."
        )
    if size < 8:
        raise CheckpointError(f"{path} is empty or cut short: it has {size} bytes. Download or copy it again.")


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; a .safetensors file is needed here."
    if not path.parent.is_dir():
        return f"There is no file {path}: its folder {path.parent} does not exist."
    present = sorted(file.name for file in path.parent.glob("*.safetensors"))
    near = difflib.get_close_matches(path.name, present, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" The folder has: {', '.join(present) or 'no .safetensors file'}."
    return f"There is no file {path}.{hint}"
