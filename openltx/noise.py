"""Gaussian noise that does not depend on the batch, the device or the rank.

Every random tensor of openltx is drawn in float32 on the generator's own device (the CPU unless somebody chose
otherwise) and moved afterwards, one generator a sample: a batch equals its singles, and one seed gives one video
whatever the hardware.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


def randn(shape: Sequence[int], generator: Generators, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Standard normal noise of ``shape`` (b ...); with a sequence of generators, sample i comes from generator i."""
    if generator is None or isinstance(generator, torch.Generator):
        source = generator.device if generator is not None else device
        return torch.randn(*shape, generator=generator, device=source).to(device, dtype)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}; give one, or one per sample")
    samples = [torch.randn(*shape[1:], generator=g, device=g.device) for g in generator]
    return torch.stack([sample.to(device, dtype) for sample in samples])


def seeded(*seeds: int) -> list[torch.Generator]:
    """One CPU generator for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]
