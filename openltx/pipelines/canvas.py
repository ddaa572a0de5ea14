"""A tensor on the disk: where a video grows that is too large for memory."""

import math
import os
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor


def on_disk(shape: Sequence[int]) -> Tensor:
    """Zeros in float32, mapped from a file in the folder for temporary files, which is gone when they are.

    ``OSError`` if the disk has no room for it.
    """
    size = math.prod(shape)
    with tempfile.NamedTemporaryFile(prefix="openltx-") as file:
        if hasattr(os, "posix_fallocate"):  # a disk that is full later on would end the process
            os.posix_fallocate(file.fileno(), 0, 4 * size)
        return torch.from_file(file.name, shared=True, size=size, dtype=torch.float32).view(tuple(shape))
