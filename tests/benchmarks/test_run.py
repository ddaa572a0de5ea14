"""The benchmark's bookkeeping; the measuring itself is `make bench`."""

import pytest
import torch

from benchmarks import cases, run
from benchmarks.timing import Row, race, relative_error


def test_every_case_is_there() -> None:
    assert all(callable(getattr(cases, name)) for name in run.CASES)


def test_contenders_take_turns_after_one_untimed_call_each() -> None:
    calls: list[str] = []
    seconds = race({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == list("ababab")
    assert set(seconds) == {"a", "b"}
    assert all(value >= 0 for value in seconds.values())


def test_relative_error() -> None:
    assert relative_error(torch.tensor([1.1, 0.0]), torch.tensor([1.0, 0.0])) == pytest.approx(0.1, rel=1e-5)


def test_the_report_names_ratios_errors_and_versions() -> None:
    rows = [Row("work", "other", "bf16", 1.5, 2.0, 3.0, error=1e-3, their_error=2e-3, note="fast")]
    text = run._markdown(rows, rounds=5, threads=2, seconds=90)
    assert "| work | other | bf16 | 1.50 | 2.000 s | 3.000 s | 1.0e-03 | 2.0e-03 | fast |" in text
    assert torch.__version__ in text
