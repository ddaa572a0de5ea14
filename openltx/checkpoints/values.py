"""Whether weights can be computed with: which number formats, and that every value is finite."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from openltx.checkpoints.header import StoredTensor
from openltx.errors import CheckpointError


def require_formats(path: Path, stored: Mapping[str, StoredTensor], dtype: torch.dtype | None) -> None:
    """Raise ``CheckpointError`` if the weights cannot be computed with as ``dtype`` (None: as they are stored)."""
    integers = [tensor for tensor in stored.values() if not tensor.is_floating_point]
    if integers:
        raise CheckpointError(
            f"{path} stores {len(integers)} tensors as integers, {integers[0].name} as {integers[0].dtype}: "
            "the weights were quantised by another program. Use the bfloat16 or 8-bit float file of the same model."
        )
    kinds = {tensor.dtype for tensor in stored.values()}
    if dtype == torch.float16 or (dtype is None and "F16" in kinds):
        raise CheckpointError(
            f"{path} is to be computed in float16, in which this network's values overflow (the videos turn out green "
            "or empty). Use bfloat16 or float32, for example dtype=torch.bfloat16."
        )
    if dtype is None and kinds & {"F8_E4M3", "F8_E5M2"}:
        raise CheckpointError(
            f"{path} stores weights in 8-bit floats, in which nothing can be computed here. Say what to convert them "
            "to, for example dtype=torch.bfloat16."
        )


def require_finite(stored: Mapping[str, StoredTensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointError`` naming the first of the loaded ``tensors`` that holds NaN or infinity.

    A sum is finite if all values are, and is the cheapest pass over them; only where it is not the values are counted
    (a sum of finite ones may overflow).
    """
    for name, tensor in tensors.items():
        values = tensor.float() if tensor.itemsize == 1 else tensor  # 8-bit floats have no sum
        if tensor.is_floating_point() and not torch.isfinite(values.sum()):
            bad = int((~torch.isfinite(values)).sum())
            if bad:
                raise CheckpointError(
                    f"{stored[name].file} is damaged: {bad:,} of the {tensor.numel():,} values of {stored[name].name} "
                    "are not finite numbers (NaN or infinity). Download it again, or ask whoever trained it."
                )
