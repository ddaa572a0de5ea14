"""Logs that go on where a run goes on, the picture of the curves, the console."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openltx.training.curves import STRONG, plot_curves
from openltx.training.metrics import PLAIN_LINE_EVERY_SECONDS, ConsoleProgress, JsonLines, read_json_lines


def test_lines_after_the_resumed_step_are_dropped(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path, 0)
    for step in (2, 4, 6):
        log.write({"step": step})
    log.close()
    again = JsonLines(path, 5)
    again.write({"step": 6, "again": True})
    again.close()
    assert read_json_lines(path) == [{"step": 2}, {"step": 4}, {"step": 6, "again": True}]


def test_a_line_still_being_written_is_not_read(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_json_lines(path) == [{"step": 1}]


def test_curves_have_a_panel_for_each_loss_and_fall_when_it_falls(tmp_path: Path):
    records = [{"step": step, "a/loss": 10.0 / step, "b/loss": 1.0, "a/lr": 0.1} for step in range(1, 201)]
    plot_curves(records, tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png"))
    rows, columns = np.nonzero((pixels[: len(pixels) // 2] == STRONG).all(axis=2))
    assert rows[columns < columns.max() // 3].mean() < rows[columns > 2 * columns.max() // 3].mean()
    assert (pixels[len(pixels) // 2 :] == STRONG).all(axis=2).any()


def test_console_that_is_no_terminal_gets_a_plain_line_now_and_then(
    toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    console = ConsoleProgress(toy.toy_config(tmp_path, progress=True, steps=9), 0)
    console.advance(1, {"fit/loss": 0.5})
    monkeypatch.setattr(console, "printed", console.printed - PLAIN_LINE_EVERY_SECONDS)
    console.advance(2, {"fit/loss": 0.25, "fit/lr": 1.0})
    console.close()
    line = capsys.readouterr().err
    assert line.startswith("step 2/9  fit/loss 0.25")
    assert "lr" not in line
    assert "\n" not in line.rstrip("\n")
