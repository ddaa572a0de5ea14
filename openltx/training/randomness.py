"""Randomness as a function of names and numbers, so that nothing random has to be remembered.

Every random draw of a run comes from `(seed, step, ...)`. A resumed run therefore repeats the uninterrupted one without
any saved generator state, and writing more or fewer sample grids does not change what is learned.
"""

import hashlib
import random

import numpy as np
import torch


def derived_seed(seed: int, *keys: int | str) -> int:
    """A 63-bit seed that depends on `seed` and on every key and its place."""
    digest = hashlib.blake2b(repr((seed, *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derived_generator(seed: int, *keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for the draws named by `keys`, for example `derived_generator(seed, "batch", step, micro)`."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *keys))


def seed_global_generators(seed: int, *keys: int | str) -> None:
    """Seed torch, numpy and Python's own generator, for code (dropout, libraries) that draws from the global ones."""
    value = derived_seed(seed, "global", *keys)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)
