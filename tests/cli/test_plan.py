"""``openltx plan``: a table of stages and a table of machines."""

from pathlib import Path

import pytest

from openltx.cli import main
from openltx.pipelines import machines


def test_a_plan_shows_stages_and_machines_without_making_anything(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(machines, "measured_rate", lambda _: 1e11)
    before = sorted(Path().iterdir())
    assert main(["plan", "a red ball", "--model", str(tiny_checkpoint), "--frames", "17", "--size", "64x64"]) == 0
    page = capsys.readouterr().out
    for word in ("read prompt", "denoise, 6 passes", "decode", "memory streamed", "this CPU", "H100", "4090", "M4 Max"):
        assert word in page
    assert sorted(Path().iterdir()) == before


def test_only_the_named_machines_are_shown(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "a red ball", "--model", str(tiny_checkpoint), "--device-profile", "h100"]) == 0
    page = capsys.readouterr().out
    assert "H100" in page
    assert "this CPU" not in page


def test_an_unknown_machine_names_the_known_ones(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "a red ball", "--model", str(tiny_checkpoint), "--device-profile", "abacus"]) == 2
    assert "here, h100, 4090, m4-max" in capsys.readouterr().err
