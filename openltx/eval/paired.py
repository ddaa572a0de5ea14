"""Two models side by side: the same prompts, the same seeds, and the mean of the differences video by video.

The difference of two videos of one prompt varies much less than either of them, so its interval is the one to read; it
comes from resampling pairs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from openltx.eval.intervals import Estimate, mean_of
from openltx.eval.report import Cell, markdown_table
from openltx.eval.suite import Better, Score, interval_text

FEWEST_PAIRS = 6
"""Below it even pairs that all agree could be chance: two sided, 2 * 0.5^5 is more than 5%."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One measure of two models. ``difference`` is b - a; ``wins`` the share of videos that are better in b.

    ``wins`` counts a tie as half. It is None for numbers of a whole set, and where neither way is better.
    """

    name: str
    better: Better
    a: Estimate
    b: Estimate
    difference: Estimate
    wins: float | None

    @property
    def verdict(self) -> str:
        """Which is better, if the interval of the difference leaves zero out and there are enough pairs."""
        low, high = self.difference.low, self.difference.high
        if self.difference.n < FEWEST_PAIRS:
            return "too few"
        if low is None or high is None or low <= 0 <= high:
            return "undecided"
        if self.better == "either":
            return "B is higher" if low > 0 else "A is higher"
        return "B" if (low > 0) == (self.better == "higher") else "A"


def differences(a: Sequence[Score], b: Sequence[Score], seed: int = 0) -> list[Difference]:
    """Every measure that both have; their videos are in the same order."""
    other = {score.name: score for score in b}
    return [_difference(score, other[score.name], seed) for score in a if score.name in other]


def to_markdown(names: tuple[str, str], found: Sequence[Difference]) -> str:
    """A row for each measure."""
    rows: list[list[Cell]] = [
        [
            each.name,
            each.a.value,
            each.b.value,
            each.difference.value,
            interval_text(each.difference),
            each.difference.n,
            None if each.wins is None else f"{100 * each.wins:.0f}%",
            each.better,
            each.verdict,
        ]
        for each in found
    ]
    header = ["measure", "A", "B", "B - A", "95% interval", "n", "B better in", "better", "verdict"]
    return f"A: {names[0]}\nB: {names[1]}\n\n{markdown_table(header, rows)}\n"


def to_json(found: Sequence[Difference]) -> dict[str, dict[str, Any]]:
    """Name -> everything."""
    return {each.name: {**asdict(each), "verdict": each.verdict} for each in found}


def _difference(a: Score, b: Score, seed: int) -> Difference:
    pairs = [(x, y) for x, y in zip(a.values, b.values, strict=True) if x is not None and y is not None]
    estimate = mean_of([y - x for x, y in pairs], seed)
    sign = 1 if a.better == "higher" else -1
    wins = None
    if pairs and a.better != "either":
        wins = sum(0.5 if x == y else float(sign * (y - x) > 0) for x, y in pairs) / len(pairs)
    if estimate is None:  # a number of the whole set
        estimate = Estimate(value=b.estimate.value - a.estimate.value, low=None, high=None, n=a.estimate.n)
    return Difference(name=a.name, better=a.better, a=a.estimate, b=b.estimate, difference=estimate, wins=wins)
