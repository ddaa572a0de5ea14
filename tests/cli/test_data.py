"""``openltx data``: a world is rendered, shown, and refused with one line."""

from pathlib import Path

import pytest
from PIL import Image

from openltx.cli import main


def test_a_world_is_rendered_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = str(tmp_path / "world")
    assert main(["data", "world", "playroom", "--clips", "2", "--out", world, "--seed", "5", "--workers", "1"]) == 0
    assert "2 clips" in capsys.readouterr().out
    assert main(["data", "show", world, "--clips", "2", "--columns", "4"]) == 0
    with Image.open(tmp_path / "world" / "contact_sheet.png") as page:
        assert page.width > 4 * 128
        assert page.height > 2 * 128


def test_showing_nothing_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(tmp_path)]) == 2
    assert "No manifest.jsonl" in capsys.readouterr().err
