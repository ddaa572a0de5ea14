"""Gaussian noise that does not depend on the batch, the device or the rank.

Every random tensor of openltx is drawn in float32 on the generator's own device (the CPU unless somebody chose
otherwise) and moved afterwards, one generator a sample: a batch equals its singles, and one seed gives one video
whatever the hardware.
"""

import hashlib
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


def derived_seed(seed: int, *keys: int | str) -> int:
    """A 63-bit seed that depends on `seed` and on every key and its place."""
    digest = hashlib.blake2b(repr((seed, *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derived_generator(seed: int, *keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for the draws named by `keys`, for example `derived_generator(seed, "batch", step, micro)`."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *keys))
