"""Where a model lives: the device and the number format are chosen here, once, and never inside a pipeline."""

from pathlib import Path
from typing import Literal

import torch

from openltx.checkpoints.load import load_bundle
from openltx.errors import RequestError
from openltx.models.bundle import LTXModel

Device = Literal["auto", "cpu", "cuda", "mps"]


def load(name: str | Path = "playroom", *, device: Device = "auto", dtype: torch.dtype | None = None) -> LTXModel:
    """A model by name (the bundled "playroom") or by the path of its weight file, ready on ``device``.

    "auto" takes CUDA, else Apple's MPS, else the CPU. Weights are bfloat16 on CUDA and float32 elsewhere unless
    ``dtype`` says otherwise. Raises ``CheckpointError`` for an unknown or damaged model, ``RequestError`` for a device
    that this machine does not have.
    """
    place = choose_device(device)
    if dtype is None:
        dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    return load_bundle(name, dtype=dtype, device=place)


def choose_device(device: Device) -> torch.device:
    """The torch device for a name; raises ``RequestError`` if this machine does not have it."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[device]:
        there = ", ".join(name for name, here in available.items() if here)
        raise RequestError(f'Device "{device}" is not available here. Possible: {there}, or "auto".')
    return torch.device(device)
