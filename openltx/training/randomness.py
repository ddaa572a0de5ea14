"""Randomness as a function of names and numbers (``noise.derived_generator``), so that nothing has to be remembered.

Every random draw of a run comes from `(seed, step, ...)`. A resumed run therefore repeats the uninterrupted one without
any saved generator state, and writing more or fewer sample grids does not change what is learned.
"""

import random

import numpy as np
import torch

from openltx.noise import derived_seed


def seed_global_generators(seed: int, *keys: int | str) -> None:
    """Seed torch, numpy and Python's own generator, for code (dropout, libraries) that draws from the global ones."""
    value = derived_seed(seed, "global", *keys)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)
