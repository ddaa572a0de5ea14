"""A Siamese network that learns an order from pairs: one scorer looks at both clips, and the better must score higher.

The loss is the Bradley-Terry likelihood of the answers, -log sigmoid(s(better) - s(worse)). Scores have no unit; of the
clips that the ranker has learned from their mean is 0 and their deviation 1.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from openltx.data.aesthetic.features import WIDTH
from openltx.errors import DataError

FORMAT = "openltx.aesthetic_ranker"
HIDDEN, STEPS, BATCH = 64, 400, 256
RATE, DECAY, DROPOUT = 1e-3, 0.05, 0.3
HELDOUT_SHARE = 0.2

Pair = tuple[int, int]  # the better clip, the worse one


class Ranker(nn.Module):
    """Features to a score."""

    center: Tensor
    spread: Tensor

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.scorer = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 1)
        )

    def forward(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        x = ((features.float() - self.center) / self.spread).clamp(-5, 5)
        return self.scorer(x)[..., 0]

    def save(self, path: Path, report: dict[str, object]) -> None:
        """Write the weights, and what is known of them."""
        partial = path.with_name(path.name + ".partial")
        save_file(dict(self.state_dict()), partial, metadata={FORMAT: json.dumps(report)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> "Ranker":
        """A saved ranker, ready to score; ``DataError`` if the file is none."""
        try:
            with safe_open(path, framework="pt") as file:
                if FORMAT not in (file.metadata() or {}):
                    raise DataError(f"{path} is no aesthetic ranker. Make one with: openltx data rank SET --out {path}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} cannot be read as an aesthetic ranker ({error}).") from error
        ranker = cls(len(tensors["center"]))
        ranker.load_state_dict(tensors)
        return ranker.eval()


@dataclass(frozen=True)
class Accuracy:
    """The share of pairs whose order is right, and its 95 % interval (Wilson's) for so many pairs."""

    share: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.share:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.pairs} pairs"


def train_ranker(features: Float[Tensor, "n d"], pairs: Sequence[Pair], *, seed: int = 0, steps: int = STEPS) -> Ranker:
    """A ranker that has learned the pairs; the same seed gives the same one. ``DataError`` without a pair."""
    if not pairs:
        raise DataError("There is no rated pair to learn from. Rate some: openltx data rate SET")
    better, worse = torch.tensor(pairs).unbind(1)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = Ranker(features.shape[1])
        used = features[torch.cat([better, worse]).unique()].float()
        ranker.center.copy_(used.mean(0))
        ranker.spread.copy_(used.std(0, unbiased=False).clamp_min(1e-4) if len(used) > 1 else torch.ones(len(used[0])))
        optimizer = torch.optim.AdamW(ranker.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = torch.randint(len(pairs), (min(BATCH, len(pairs)),), generator=generator)
            margin = ranker(features[better[chosen]]) - ranker(features[worse[chosen]])
            loss = F.softplus(-margin).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _standardised(ranker.eval(), used)


def score(ranker: Ranker, features: Float[Tensor, "n d"]) -> Float[np.ndarray, "n"]:
    """Scores of many clips."""
    with torch.inference_mode():
        return ranker(features).numpy()


def accuracy(scores: Float[np.ndarray, "n"], pairs: Sequence[Pair]) -> Accuracy:
    """How many pairs the scores put in the right order; equal scores count as wrong."""
    right, count = sum(bool(scores[better] > scores[worse]) for better, worse in pairs), len(pairs)
    if not count:
        return Accuracy(float("nan"), 0.0, 1.0, 0)
    z, share = 1.96, right / count
    middle, half = share + z * z / (2 * count), z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Accuracy(share, float((middle - half) / scale), float((middle + half) / scale), count)


def hold_out(pairs: Sequence[Pair], groups: Sequence[int], *, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """(pairs to learn from, pairs to measure on): a fifth of the groups of clips is held out, and a pair with a clip of
    such a group is measured on, so that no measured pair consists of clips that were learned from."""
    rng = np.random.default_rng(seed)
    names = np.unique(np.asarray(groups))
    held = set(rng.permutation(names)[: max(round(HELDOUT_SHARE * len(names)), 1)].tolist())
    is_held = [groups[better] in held or groups[worse] in held for better, worse in pairs]
    return (
        [pair for pair, out in zip(pairs, is_held, strict=True) if not out],
        [pair for pair, out in zip(pairs, is_held, strict=True) if out],
    )


def _standardised(ranker: Ranker, features: Float[Tensor, "n d"]) -> Ranker:
    """The same order with scores of mean 0 and deviation 1 over these clips."""
    last = ranker.scorer[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        scores = ranker(features)
        spread = scores.std(unbiased=False).clamp_min(1e-6)
        last.weight /= spread
        last.bias.copy_((last.bias - scores.mean()) / spread)
    return ranker
