"""The table of ``benchmarks.drift``, with a tiny model."""

from pathlib import Path

import pytest
import torch

from benchmarks import drift


def test_a_row_has_mean_deviation_and_distance_from_the_first_window() -> None:
    first = torch.zeros(1, 4, 2, 1, 2)
    later = torch.tensor([2.0, 4.0]).expand(1, 4, 2, 1, 2)
    assert drift.row([[first, later]], 1) == "+3.000, 1.033, 3.000"


def test_the_table_has_a_row_for_each_window(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drift, "PROMPTS", ("a ball",))
    drift.main(33, 17, 9, model=str(tiny_checkpoint))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" |")[0] for line in lines] == ["| window", "|---|---|---|", "| 1", "| 2", "| 3"]
    assert lines[2].count("0.000 |") >= 2  # the first window is at no distance from itself
