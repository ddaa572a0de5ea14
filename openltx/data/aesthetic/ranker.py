"""A Siamese network that learns an order from pairs: one scorer looks at both clips, and the better must score higher.

The loss is the Bradley-Terry likelihood of the answers, -log sigmoid(s(better) - s(worse)). The scorer is linear over a
frozen network's features and over how far they are, layer by layer, from what good clips give: whatever spoils a
picture, in a way that was rated or in another one, moves them away. It has one best solution, found by L-BFGS. Scores
have no unit; of the clips that the ranker has learned from their mean is 0 and their deviation 1.
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

from openltx.data.aesthetic.features import PARTS
from openltx.errors import DataError

FORMAT = "openltx.aesthetic_ranker"
DECAY = 0.001
OF_FEATURES = (
    0.1  # scale of single features beside a layer's deviation: as if they were decayed a hundred times as much
)
FURTHEST = 8.0  # deviations that count
ITERATIONS = 60
HELDOUT_SHARE = 0.2

Pair = tuple[int, int]  # the better clip, the worse one


class Ranker(nn.Module):
    """Features to a score."""

    center: Tensor
    spread: Tensor

    def __init__(self, parts: Sequence[int] = PARTS) -> None:
        """``parts``: how many features come from each layer."""
        super().__init__()
        self.parts = tuple(parts)
        self.register_buffer("center", torch.zeros(sum(parts)))
        self.register_buffer("spread", torch.ones(sum(parts)))
        self.scorer = nn.Linear(sum(parts) + len(parts), 1)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        return self.scorer(self.inputs(features))[:, 0]

    def inputs(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n _"]:
        """Standardised features, and the logarithm of each layer's mean squared deviation."""
        x = ((features.float() - self.center) / self.spread).clamp(-FURTHEST, FURTHEST)
        far = [part.square().mean(1).clamp_min(1e-3).log() for part in x.split(self.parts, dim=1)]
        return torch.cat([OF_FEATURES * x, torch.stack(far, 1)], 1)

    def save(self, path: Path, report: dict[str, object]) -> None:
        """Write the weights, and what is known of them."""
        partial = path.with_name(path.name + ".partial")
        save_file(
            self.state_dict() | {"parts": torch.tensor(self.parts)}, partial, metadata={FORMAT: json.dumps(report)}
        )
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
        ranker = cls(tensors.pop("parts").tolist())
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


def train_ranker(features: Float[Tensor, "n d"], pairs: Sequence[Pair], parts: Sequence[int] = PARTS) -> Ranker:
    """The ranker that has learned the pairs; ``DataError`` without a pair."""
    if not pairs:
        raise DataError("There is no rated pair to learn from. Rate some: openltx data rate SET")
    better, worse = torch.tensor(pairs).unbind(1)
    ranker = Ranker(parts)
    good = features[better.unique()].float()
    ranker.center.copy_(good.mean(0))
    ranker.spread.copy_(good.std(0, unbiased=False).clamp_min(1e-4) if len(good) > 1 else torch.ones(len(good[0])))
    x = ranker.inputs(features)
    difference = x[better] - x[worse]
    weight = torch.zeros(x.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.softplus(-difference @ weight).mean() + DECAY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType] (wants a float)
    with torch.no_grad():
        scores = x[torch.cat([better, worse]).unique()] @ weight
        spread = scores.std(unbiased=False).clamp_min(1e-6)
        ranker.scorer.weight.copy_(weight / spread)
        ranker.scorer.bias.copy_(-scores.mean() / spread)
    return ranker.eval()


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
