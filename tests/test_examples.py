"""Every example runs, with a tiny model, and fits on a screen."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
ARGUMENTS = {"text_to_video.py": [], "image_to_video.py": ["start.png"], "long_video.py": []}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_example_runs_and_writes_a_video(
    name: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("start.png")
    monkeypatch.setattr(sys, "argv", [name, *ARGUMENTS[name], str(tiny_checkpoint)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert len(list(tmp_path.glob("*.mp4"))) == 1


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_screen(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60
