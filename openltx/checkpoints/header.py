"""The header of a safetensors file, read without its tensors, and what can be wrong with such a file.

A safetensors file is the header's length (8 bytes, little endian), the header (JSON: dtype, shape and byte range of
every tensor, and string metadata), then the bytes. So a cut or foreign file is recognised before anything is loaded.
"""

import difflib
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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

    @property
    def num_bytes(self) -> int:
        """How many bytes it takes in the file."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def is_floating_point(self) -> bool:
        """Whether it holds floats of any size."""
        return self.dtype.startswith(("F", "BF"))


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says about itself: string metadata, and its tensors by stored name."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, StoredTensor]


def read_header(path: Path) -> Header:
    """The header of a safetensors file; raises ``CheckpointError`` if it is missing, damaged or something else."""
    try:
        if not path.is_file():
            raise CheckpointError(_missing(path))
        entries, rest = _parse(path)
        start = path.stat().st_size - rest
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        metadata = entries.pop("__metadata__", None) or {}
        tensors = {name: _stored(path, name, entry, start) for name, entry in entries.items()}
        ranges = {name: tuple(entry["data_offsets"]) for name, entry in entries.items()}
        strings = all(isinstance(text, str) for text in metadata.values())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: its safetensors header makes no sense ({error}).") from error
    if not strings:
        raise CheckpointError(f"{path} is damaged: the metadata in its header are not all strings.")
    _require_gapless(path, tensors.values(), ranges, rest)
    return Header(path=path, metadata=metadata, tensors=tensors)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put ``path`` in front of every ``CheckpointError`` that does not say which file it is about."""
    try:
        yield
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from error


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


def _stored(path: Path, name: str, entry: Any, start: int) -> StoredTensor:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPE_BYTES:
        raise CheckpointError(f"{path} stores {name} as {dtype!r}. openltx knows {', '.join(DTYPE_BYTES)}.")
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, begin, end)):
        raise ValueError(f"shape {shape} and bytes {begin} to {end} of {name}")
    return StoredTensor(file=path, name=name, dtype=dtype, shape=tuple(shape), start=start + begin)


def _require_gapless(
    path: Path, tensors: Iterable[StoredTensor], ranges: Mapping[str, tuple[int, int]], rest: int
) -> None:
    """Raise unless the tensors' byte ranges follow each other, each as long as its shape says, to the file's end."""
    end = max((end for _, end in ranges.values()), default=0)
    if end > rest:
        raise CheckpointError(
            f"{path} is cut short: its header promises {end:,} bytes of tensors, and {rest:,} are there. Download or "
            "copy it again."
        )
    reached = 0
    for stored in sorted(tensors, key=lambda stored: (stored.start, stored.num_bytes)):
        begin, end = ranges[stored.name]
        if begin != reached or end - begin != stored.num_bytes:
            raise CheckpointError(
                f"{path} is damaged: {stored.name} is at the bytes {begin:,} to {end:,} of its tensors, and by the "
                f"order and shapes in the header it would be at {reached:,} to {reached + stored.num_bytes:,}. "
                "Download or copy it again."
            )
        reached = end
    if reached != rest:
        raise CheckpointError(
            f"{path} is damaged: its header promises {reached:,} bytes of tensors, and {rest:,} are there. Download or "
            "copy it again."
        )


def _parse(path: Path) -> tuple[dict[str, Any], int]:
    """The header's JSON, and how many bytes follow it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        _refuse_foreign(path, start, size)
        file.seek(8)
        (length,) = struct.unpack("<Q", start[:8])
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{path} is no safetensors file, or is cut short within its header ({size:,} bytes are there). "
                "Download or copy it again."
            )
        try:
            entries = json.loads(file.read(length), object_pairs_hook=_unique)
        except KeyError as error:
            raise CheckpointError(f"{path} is damaged: its header names {error} twice.") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is no safetensors file: its header is not JSON.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} is no safetensors file: its header is not a JSON object.")
    return entries, size - 8 - length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ``KeyError`` for a name that comes twice, which JSON itself allows."""
    entries = {}
    for name, value in pairs:
        if name in entries:
            raise KeyError(name)
        entries[name] = value
    return entries


def _refuse_foreign(path: Path, start: bytes, size: int) -> None:
    if start[8:9] == b"{":  # a safetensors header, whatever its length looks like
        return
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise CheckpointError(
            f"{path} is a pickle or a zip archive, as .ckpt, .pt, .pth and .bin files are. Loading one runs any code "
            "that its maker put in, so openltx never does. Use the .safetensors file of the same model."
        )
    if start.startswith(b"version "):
        raise CheckpointError(
            f"{path} is a Git LFS pointer and not the weights. Run `git lfs pull` where you cloned it, or download "
            "the file itself."
        )
    if start.lstrip().startswith(b"<"):
        raise CheckpointError(
            f"{path} is a web page that was saved under this name, not the weights. Download the file itself, for "
            "example with `openltx pull` (`openltx models` shows the names)."
        )
    if start.startswith(b"GGUF"):
        raise CheckpointError(
            f"{path} is a GGUF file, whose weights are packed in a format that openltx does not read for this network. "
            "Use the .safetensors file of the same model."
        )
    if size < 8:
        raise CheckpointError(f"{path} is empty or cut short: it has {size} bytes. Download or copy it again.")


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; a .safetensors file is needed here."
    if path.is_symlink():
        return f"{path} is a link that leads nowhere: {path.readlink()}. Download or copy the file again."
    if not path.parent.is_dir():
        return f"There is no file {path}: its folder {path.parent} does not exist."
    present = sorted(file.name for file in path.parent.glob("*.safetensors"))
    near = difflib.get_close_matches(path.name, present, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" The folder has: {', '.join(present) or 'no .safetensors file'}."
    return f"There is no file {path}.{hint}"


MAX_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
