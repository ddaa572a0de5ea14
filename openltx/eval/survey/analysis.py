"""What the answers say.

    win rate         wins / (wins + losses), ties left out (paper section 4.2); ties are counted beside it
    matrix           the same for each pair of models: how often the row beats the column (figure 15)
    Bradley-Terry    scores s with P(i beats j) = 1 / (1 + exp(s_j - s_i)), of mean 0, by maximum likelihood; a tie is
                     half a win for each. Half a win each way is added to every pair that was compared, so that a
                     model which always won has a finite score
    two groups       raters split at random in halves: how far the two halves' win rates lie apart (paper: less than 2%)

Intervals are of 95%, by a bootstrap over raters, each with all his answers: they widen where raters disagree. With less
than eight raters there is too little to draw from, and answers are drawn one by one. Raters who fail more
than a quarter of their attention checks are left out, and named.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from openltx.errors import DataError
from openltx.eval.intervals import Estimate, percentile_interval
from openltx.eval.report import Cell, markdown_table
from openltx.eval.suite import interval_text
from openltx.eval.survey.answers import CRITERIA, Answer
from openltx.eval.survey.study import Study

RESAMPLES = 1000
SPLITS = 200
FEWEST_RATERS = 8
MOST_FAILED = 0.25
_NEWTON_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of each answer (row) the rater's place, and whether model i beat j or met it in a tie, with pairs as columns."""

    rater: np.ndarray
    wins: Float[np.ndarray, "n pairs"]
    ties: Float[np.ndarray, "n pairs"]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """How far the win rates of two halves of the raters lie apart: in one split, and over many, in the worst model."""

    difference: dict[str, float | None]
    mean: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One criterion. ``matrix[a][b]`` is how often a beats b; None if they never met, or only tied."""

    win_rate: dict[str, Estimate | None]
    ties: dict[str, float]
    matrix: dict[str, dict[str, Estimate | None]]
    bradley_terry: dict[str, Estimate]
    groups: Groups | None

    @property
    def order(self) -> list[str]:
        """The models, the best first."""
        return sorted(self.bradley_terry, key=lambda model: -self.bradley_terry[model].value)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The whole study. ``left_share`` is how often the left clip won, of those that won: 0.5 if sides do not matter."""

    models: tuple[str, ...]
    raters: int
    answers: int
    excluded: dict[str, str]
    left_share: float | None
    verdicts: dict[str, Verdict]


def analyse(study: Study, answers: Sequence[Answer], seed: int = 0) -> Result:
    """Evaluate a study; DataError if there is nothing to evaluate."""
    excluded = inattentive(answers)
    real = [answer for answer in answers if answer.question.broken is None and answer.rater not in excluded]
    if not real:
        raise DataError("There are no answers to evaluate yet, apart from attention checks and raters who failed them.")
    overall = [answer.choice("overall") for answer in real]
    decided = [choice == "left" for choice in overall if choice != "tie"]
    return Result(
        models=study.models,
        raters=len({answer.rater for answer in real}),
        answers=len(real),
        excluded=excluded,
        left_share=float(np.mean(decided)) if decided else None,
        verdicts={name: verdict(study.models, count(study, real, name), seed) for name in CRITERIA},
    )


def inattentive(answers: Sequence[Answer]) -> dict[str, str]:
    """Raters who preferred the broken clip too often, or saw no difference: "3 of 5 checks failed"."""
    checks: dict[str, list[bool]] = {}
    for answer in answers:
        if (broken := answer.question.broken) is not None:
            good = "right" if answer.question.left == broken else "left"
            checks.setdefault(answer.rater, []).append(answer.choice("overall") != good)
    return {
        rater: f"{sum(failed)} of {len(failed)} checks failed"
        for rater, failed in checks.items()
        if sum(failed) > MOST_FAILED * len(failed)
    }


def count(study: Study, answers: Sequence[Answer], criterion: str) -> Counts:
    """One criterion's answers as wins and ties between models."""
    place = {model: i for i, model in enumerate(study.models)}
    there = {answer.rater for answer in answers}
    raters = {rater: i for i, rater in enumerate(rater for rater in study.raters if rater in there)}
    size = len(place)
    wins, ties = np.zeros((2, len(answers), size * size))
    for row, answer in enumerate(answers):
        left, right = (place[study.clips[clip][0]] for clip in (answer.question.left, answer.question.right))
        match answer.choice(criterion):
            case "left":
                wins[row, left * size + right] = 1
            case "right":
                wins[row, right * size + left] = 1
            case "tie":
                ties[row, [left * size + right, right * size + left]] = 1
    return Counts(rater=np.array([raters[answer.rater] for answer in answers]), wins=wins, ties=ties)


def verdict(models: Sequence[str], counts: Counts, seed: int) -> Verdict:
    """Everything about one criterion."""
    size = len(models)
    weights = np.concatenate([np.ones((1, len(counts.rater))), resampled(counts.rater, seed)])
    wins, ties = ((weights @ table).reshape(-1, size, size) for table in (counts.wins, counts.ties))
    scores = bradley_terry(wins + ties / 2)
    losses = wins.swapaxes(1, 2)
    rates, pairs = _rate(wins.sum(2), losses.sum(2)), _rate(wins, losses)
    met = wins[0] + losses[0] + ties[0]
    return Verdict(
        win_rate={m: _estimate(rates[:, i], wins[0, i].sum() + losses[0, i].sum()) for i, m in enumerate(models)},
        ties={m: float(ties[0, i].sum() / max(met[i].sum(), 1)) for i, m in enumerate(models)},
        matrix={
            a: {b: _estimate(pairs[:, i, j], wins[0, i, j] + wins[0, j, i]) for j, b in enumerate(models) if i != j}
            for i, a in enumerate(models)
        },
        bradley_terry={m: _score_estimate(scores[:, i], met[i].sum()) for i, m in enumerate(models)},
        groups=two_groups(models, counts, seed),
    )


def resampled(rater: np.ndarray, seed: int) -> Float[np.ndarray, "resamples n"]:
    """How often each answer occurs in each resample."""
    rng, raters, answers = np.random.default_rng(seed), int(rater.max()) + 1, len(rater)
    if raters < FEWEST_RATERS:
        return rng.multinomial(answers, np.full(answers, 1 / answers), size=RESAMPLES).astype(float)
    return rng.multinomial(raters, np.full(raters, 1 / raters), size=RESAMPLES)[:, rater].astype(float)


def bradley_terry(wins: Float[np.ndarray, "b m m"]) -> Float[np.ndarray, "b m"]:
    """Scores of mean 0 from ``wins[:, i, j]``, how often i beat j, by Newton's method on the concave likelihood."""
    met = wins + wins.swapaxes(1, 2)
    wins = wins + 0.5 * (met > 0)
    met = wins + wins.swapaxes(1, 2)
    batch, size, _ = wins.shape
    scores = np.zeros((batch, size))
    for _ in range(_NEWTON_STEPS):
        expected = 1 / (1 + np.exp(scores[:, None, :] - scores[:, :, None]))
        gradient = (wins - met * expected).sum(2)
        curvature = met * expected * (1 - expected)
        hessian = np.eye(size) * curvature.sum(2)[:, None] - curvature
        # scores are determined up to a constant, and groups of models that never met up to one each
        step = np.linalg.solve(hessian + 1e-9 * np.eye(size) + 1 / size, gradient[..., None])[..., 0]
        scores = scores + step.clip(-1, 1)
    return scores - scores.mean(1, keepdims=True)


def two_groups(models: Sequence[str], counts: Counts, seed: int) -> Groups | None:
    """The robustness check; None for a single rater."""
    raters = counts.rater.max() + 1
    if raters < 2:
        return None
    rng = np.random.default_rng(seed)
    size = len(models)
    splits = []
    for _ in range(SPLITS):
        first = np.isin(counts.rater, rng.permutation(raters)[: raters // 2])
        halves = np.stack([first, ~first]).astype(float)
        wins = (halves @ counts.wins).reshape(2, size, size)
        a, b = _rate(wins.sum(2), wins.sum(1))
        splits.append(np.abs(a - b))
    worst = [float(np.nanmax(split)) for split in splits if not np.isnan(split).all()]
    if not worst:
        return None
    known = {m: None if np.isnan(d) else float(d) for m, d in zip(models, splits[0], strict=True)}
    return Groups(difference=known, mean=float(np.mean(worst)), largest=max(worst))


def to_markdown(result: Result) -> str:
    """Win rates of all criteria, then for each the matrix, scores and the two groups."""
    models = result.models
    rates = [
        [name, *(_rate_text(v.win_rate[m]) for m in models), *(f"{100 * v.ties[m]:.0f}%" for m in models)]
        for name, v in result.verdicts.items()
    ]
    header = ["win rate", *models, *(f"ties, {m}" for m in models)]
    left = "-" if result.left_share is None else f"{100 * result.left_share:.0f}%"
    said = [f"{result.answers} answers of {result.raters} raters; of the clips that won, {left} stood on the left."]
    said += [f"Left out: {rater}, {why}." for rater, why in result.excluded.items()]
    parts = [*said, markdown_table(header, rates)]
    for name, v in result.verdicts.items():
        matrix: list[list[Cell]] = [
            [a, *("" if a == b else _rate_text(v.matrix[a][b]) for b in models), _score_text(v.bradley_terry[a])]
            for a in v.order
        ]
        parts.append(markdown_table([f"{name}: row beats column", *models, "Bradley-Terry"], matrix))
        if v.groups is not None:
            g = v.groups
            parts.append(
                f"Two groups of raters, {name}: in the worst model the win rates are {100 * g.mean:.1f} points apart "
                f"on average over {SPLITS} splits, {100 * g.largest:.1f} at most."
            )
    return "\n\n".join(parts) + "\n"


def to_json(result: Result) -> dict[str, Any]:
    """The same as JSON values, with the order that the scores give."""
    values = asdict(result)
    for name, each in result.verdicts.items():
        values["verdicts"][name]["order"] = each.order
    return values


def _rate(wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Wins of all decided; NaN where nothing was."""
    decided = wins + losses
    return np.divide(wins, decided, out=np.full(decided.shape, np.nan), where=decided > 0)


def _estimate(values: np.ndarray, n: float) -> Estimate | None:
    """The first value, with the interval of the others; NaN counts as unknown."""
    if np.isnan(values[0]):
        return None
    low, high = percentile_interval(values[1:][~np.isnan(values[1:])])
    return Estimate(value=float(values[0]), low=low, high=high, n=int(n))


def _score_estimate(values: np.ndarray, n: float) -> Estimate:
    low, high = percentile_interval(values[1:])
    return Estimate(value=float(values[0]), low=low, high=high, n=int(n))


def _rate_text(estimate: Estimate | None) -> str | None:
    if estimate is None or estimate.low is None or estimate.high is None:
        return None
    return f"{100 * estimate.value:.0f}% [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def _score_text(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({interval_text(estimate)})"
