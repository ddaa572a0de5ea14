"""Scores of clips while a set is prepared: the classifier and the ranker, as a step of their own for a runner."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from openltx.data.aesthetic.features import classifier, describe
from openltx.data.aesthetic.ranker import Ranker, score
from openltx.data.prepare.records import Measures
from openltx.data.prepare.settings import AestheticSettings
from openltx.data.prepare.stage import rounded


@dataclass(frozen=True)
class Aesthetic:
    """Judges what ``ScoreStep`` has measured."""

    settings: AestheticSettings
    name = "aesthetic"

    def objection(self, measures: Measures) -> str | None:
        score = measures["score"]
        return f"aesthetic score {score:.2f}" if score is not None and score < self.settings.min_score else None


@dataclass(frozen=True)
class ScoreStep:
    """(id, measures, views or None) of clips to (id, measures) with score and labels."""

    ranker: str
    digest: str
    uses_network = True

    def __call__(self, clips: list[tuple[str, dict[str, Measures], np.ndarray | None]]) -> list[tuple[str, Any]]:
        return [(name, measured | {"aesthetic": self._measure(seen)}) for name, measured, seen in clips]

    def _measure(self, seen: np.ndarray | None) -> Measures:
        if seen is None:
            return {"score": None, "labels": [], "ranker": self.digest}
        features, labels = describe(classifier(), seen)
        return {
            "score": rounded(score(_ranker(self.ranker), features[None])[0]),
            "labels": labels,
            "ranker": self.digest,
        }


@cache
def _ranker(path: str) -> Ranker:
    return Ranker.load(path)
