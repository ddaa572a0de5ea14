"""Raters of known preference: the order and the win rates come back."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openltx.cli import main
from openltx.eval.survey.analysis import RESAMPLES, analyse, bradley_terry, count, resampled, to_markdown, verdict
from openltx.eval.survey.answers import Answer, Answers, Choice
from openltx.eval.survey.study import ANSWERS, Study

Make = Callable[..., tuple[Path, Study]]
STRENGTH = {"alpha": 0.0, "beta": 1.2, "gamma": -0.8}
TIES = 0.15


def probability(a: str, b: str) -> float:
    """That a beats b, where they do not tie."""
    return 1 / (1 + np.exp(STRENGTH[b] - STRENGTH[a]))


def simulate(study: Study, rng: np.random.Generator, careless: int = 0) -> list[Answer]:
    """Answers of all raters; the first ``careless`` of them always press left."""
    found = []
    for place, rater in enumerate(study.raters):
        for question in study.questions(rater):
            a, b = (study.clips[study.checks.get(clip, clip)][0] for clip in (question.left, question.right))
            choice: Choice
            if place < careless:
                choice = "left"
            elif question.broken is not None:
                choice = "right" if question.left == question.broken else "left"
            elif rng.random() < TIES:
                choice = "tie"
            else:
                choice = "left" if rng.random() < probability(a, b) else "right"
            found.append(Answer(rater=rater, question=question, choices=(choice,) * 4, seconds=3.0))
    return found


def test_twenty_raters_give_back_the_order_and_the_win_rates(make_study: Make) -> None:
    _, study = make_study(raters=20, comparisons=45)
    result = analyse(study, simulate(study, np.random.default_rng(1)))
    found = result.verdicts["overall"]
    assert (result.raters, result.answers, result.excluded) == (20, 900, {})
    assert found.order == ["beta", "alpha", "gamma"]
    for a in study.models:
        others = [b for b in study.models if b != a]
        for b in others:
            pair = found.matrix[a][b]
            assert pair is not None
            assert pair.low is not None
            assert pair.high is not None
            assert pair.low <= probability(a, b) <= pair.high
            assert pair.value == pytest.approx(1 - found.matrix[b][a].value)  # pyright: ignore
        rate = found.win_rate[a]
        assert rate is not None
        assert rate.low is not None
        assert rate.high is not None
        assert rate.low <= np.mean([probability(a, b) for b in others]) <= rate.high
        assert found.ties[a] == pytest.approx(TIES, abs=0.05)
        # a tie is half a win for each, which draws the scores together
        assert np.sign(found.bradley_terry[a].value) == np.sign(STRENGTH[a] - np.mean(list(STRENGTH.values())))
    assert result.left_share == pytest.approx(0.5, abs=0.06)
    assert found.groups is not None
    assert 0 < found.groups.mean < 0.1


def test_intervals_hold_the_truth_about_as_often_as_they_say(make_study: Make) -> None:
    _, study = make_study(raters=10, comparisons=18)
    held = []
    for trial in range(30):
        answers = [a for a in simulate(study, np.random.default_rng(trial)) if a.question.broken is None]
        found = verdict(study.models, count(study, answers, "overall"), trial)
        pair = found.matrix["beta"]["alpha"]
        assert pair is not None
        assert pair.low is not None
        assert pair.high is not None
        held.append(pair.low <= probability("beta", "alpha") <= pair.high)
    assert np.mean(held) >= 0.85


def test_raters_who_do_not_look_are_left_out_and_named(make_study: Make) -> None:
    _, study = make_study(raters=8, comparisons=72)
    answers = simulate(study, np.random.default_rng(0), careless=3)
    result = analyse(study, answers)
    assert set(result.excluded) == set(study.raters[:3])
    assert result.raters == 5
    assert result.answers == 5 * 72
    assert f"Left out: {study.raters[0]}" in to_markdown(result)


def test_scores_are_the_most_likely_ones() -> None:
    from scipy.optimize import minimize

    wins = np.random.default_rng(5).integers(1, 30, (4, 4)).astype(float) * (1 - np.eye(4))
    smoothed = wins + 0.5 * (1 - np.eye(4))

    def loss(scores: np.ndarray) -> float:
        return float((smoothed * np.logaddexp(0, scores[None] - scores[:, None])).sum())

    expected = minimize(loss, np.zeros(4), tol=1e-10).x
    assert bradley_terry(wins[None])[0] == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_a_model_that_always_wins_has_a_finite_score_and_strangers_stay_at_zero() -> None:
    wins = np.zeros((1, 3, 3))
    wins[0, 0, 1] = 40
    scores = bradley_terry(wins)[0]
    assert np.isfinite(scores).all()
    assert scores[0] - scores[1] == pytest.approx(np.log(40.5 / 0.5), abs=1e-3)
    assert scores[2] == pytest.approx(0, abs=1e-6)


def test_raters_are_drawn_with_all_their_answers_and_few_raters_are_not_drawn_at_all() -> None:
    rater = np.repeat(np.arange(8), 5)
    weights = resampled(rater, seed=0)
    assert weights.shape == (RESAMPLES, 40)
    assert (weights.reshape(RESAMPLES, 8, 5) == weights.reshape(RESAMPLES, 8, 5)[:, :, :1]).all()
    assert (weights.sum(1) == 40).all()
    few = resampled(rater[:20], seed=0)
    assert (few.reshape(RESAMPLES, 4, 5) != few.reshape(RESAMPLES, 4, 5)[:, :, :1]).any()
    assert (few.sum(1) == 20).all()


def test_the_report_is_written_with_its_pictures(make_study: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder, study = make_study(raters=4, comparisons=18)
    store = Answers(folder / ANSWERS)
    for answer in simulate(study, np.random.default_rng(1)):
        store.keep(answer)
    assert main(["eval", "survey", "report", "--study", str(folder)]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["verdicts"]["overall"]["order"][0] == "beta"
    assert "| overall: row beats column |" in capsys.readouterr().out
    assert {path.name for path in folder.glob("matrix_*.png")} == {
        f"matrix_{name}.png" for name in ("quality", "motion", "adherence", "overall")
    }
