"""From a shell, in a process of its own: checkpoint file in, video file out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from openltx.media.io import read_video


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openltx", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_prompt_and_a_picture_become_the_same_video_every_time(tiny_checkpoint: Path, tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "start.png")
    line = ["generate", "a red ball", "--image", "start.png", "--seed", "7", "--model", tiny_checkpoint]
    for name in ("one.mp4", "two.mp4"):
        done = run(*line, "-o", name, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{name}  9 frames, 64x32, 8 fps, seed 7,")
    (one, fps), (two, _) = read_video(tmp_path / "one.mp4"), read_video(tmp_path / "two.mp4")
    assert fps == 8
    assert one.shape == (9, 32, 64, 3)
    assert np.array_equal(one, two)


def test_a_mistake_ends_a_process_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    done = run("generate", "a red ball", "--model", "missing.safetensors", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "missing.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
