"""How much of training falls on which noise level, for the readings of "we clamp the pdf" (flow.schedule).

python -m benchmarks.times        shares of samples in each bin of t, for several shifts mu, from a million draws each
"""

import itertools
from typing import get_args

import torch

from openltx.eval.report import markdown_table
from openltx.flow.schedule import Tails, sample_logit_normal
from openltx.training.flow import T_BINS

SHIFTS = (0.0, 0.9, 2.05, 2.78)  # unshifted; 112 tokens of Playroom; 4,096 and 6,144 tokens of the releases
DRAWS = 1_000_000


def shares(mu: float, tails: Tails) -> list[float]:
    """The share of samples in each bin."""
    t = sample_logit_normal(DRAWS, mu, generator=torch.Generator().manual_seed(0), tails=tails)
    return [float(((t >= low) & ((t < high) | (high == 1))).float().mean()) for low, high in itertools.pairwise(T_BINS)]


def main() -> None:
    bins = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(T_BINS)]
    rows = [[f"{mu:g}", tails, *(f"{100 * share:.2f}%" for share in shares(mu, tails))]
            for mu in SHIFTS for tails in get_args(Tails)]  # fmt: skip
    print(markdown_table(["mu", "tails", *bins], rows))


if __name__ == "__main__":
    main()
