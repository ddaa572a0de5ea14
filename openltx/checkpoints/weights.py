"""The tensors of one network in their files, to be read when they are wanted, once or again and again.

Each tensor is mapped into memory by itself. (The safetensors library maps a whole file at once, writable, which Linux
refuses for a file that is larger than the memory.)
"""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openltx.checkpoints.header import StoredTensor
from openltx.checkpoints.values import require_finite
from openltx.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors' names of types."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Which tensors make a module, under the module's names; and how they are wanted.

    ``dtype`` None keeps them as they are stored. On the CPU, tensors that are wanted as they are stored are not copied:
    they are pages of the file, which the system reads when they are touched and may drop at any time.
    """

    stored: Mapping[str, StoredTensor]
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None

    def read(self) -> dict[str, Tensor]:
        """All of them."""
        return {name: self._wanted(map_tensor(stored)) for name, stored in self.stored.items()}

    def read_finite(self) -> dict[str, Tensor]:
        """All of them, once every number was looked at; ``CheckpointError`` if one is NaN or infinite."""
        tensors = self.read()
        require_finite(self.stored, tensors)
        return tensors

    def under(self, prefix: str, parts: tuple[str, ...] = ()) -> "Weights":
        """Those below a dotted name, without it; with ``parts``, only those whose rest begins with one of them."""
        chosen = {
            name.removeprefix(prefix): stored
            for name, stored in self.stored.items()
            if name.startswith(prefix) and (not parts or name.removeprefix(prefix).startswith(parts))
        }
        return Weights(stored=chosen, dtype=self.dtype, device=self.device)

    def outside(self, *prefixes: str) -> "Weights":
        """Those below none of the prefixes."""
        chosen = {name: stored for name, stored in self.stored.items() if not name.startswith(prefixes)}
        return Weights(stored=chosen, dtype=self.dtype, device=self.device)

    def _wanted(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype if self.dtype is not None and tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.device or "cpu", dtype)


def fill(module: nn.Module, weights: Weights) -> None:
    """Give a module on the meta device all its tensors; ``CheckpointError`` if a value is not finite."""
    module.load_state_dict(weights.read_finite(), strict=True, assign=True)
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert not left, f"tensors outside the state dict stayed on meta: {left}"


def map_tensor(stored: StoredTensor) -> Tensor:
    """A tensor on the pages of its file. What is written to it stays in memory and is not seen by others."""
    if stored.dtype not in DTYPES:
        raise CheckpointError(f"{stored.file} stores {stored.name} as {stored.dtype}, which torch does not have.")
    dtype, count = DTYPES[stored.dtype], math.prod(stored.shape)
    if count == 0:
        return torch.empty(stored.shape, dtype=dtype)
    before = stored.start % mmap.ALLOCATIONGRANULARITY
    size = count * dtype.itemsize
    with stored.file.open("rb") as file:
        pages = mmap.mmap(file.fileno(), before + size, access=mmap.ACCESS_COPY, offset=stored.start - before)
    data = torch.frombuffer(pages, dtype=torch.uint8, count=size, offset=before)
    if stored.start % dtype.itemsize:  # numbers must not lie across their natural places
        data = data.clone()
    return data.view(dtype).view(stored.shape)
