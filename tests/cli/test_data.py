"""``openltx data``: a world is rendered, videos are cut, both are shown, and refused with one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openltx.cli import main
from openltx.media.io import write_video


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


def test_videos_are_cut_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.full((30, 64, 96, 3), (200, 60, 40), np.uint8)
    frames[18:] = (40, 60, 200)
    write_video(tmp_path / "a.mp4", frames, 24.0)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    out = str(tmp_path / "clips")
    command = [
        "data",
        "footage",
        str(tmp_path),
        "--out",
        out,
        "--size",
        "64x32",
        "--min-frames",
        "15",
        "--heldout",
        "0",
    ]
    assert main([*command, "--credit", "Ada"]) == 0
    printed = capsys.readouterr().out
    for part in ("1 clips, 18 frames, 0 clips held out", "2 shots, 1 too short", "credit: Ada", "not used: b.mp4: "):
        assert part in printed
    assert main(["data", "show", out]) == 0
    with Image.open(tmp_path / "clips" / "contact_sheet.png") as page:
        assert page.width > 8 * 96


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["absent.mp4", "--size", "64x64"], "no file or folder absent.mp4"),
        (["absent.mp4", "--size", "wide"], "WIDTHxHEIGHT"),
        (["absent.mp4", "--size", "65x64"], "multiples of 32"),
        (["big-buck-bunny", "--size", "64x64"], "openltx assets pull big-buck-bunny"),
        (["--size", "64x64"], "at least one video"),
    ],
)
def test_wrong_footage_is_one_clear_error(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path))
    assert main(["data", "footage", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert complaint in capsys.readouterr().err
