"""A released model that is made for two passes, by the name of its file alone."""

import json
import shutil
from pathlib import Path

import pytest

from openltx.cli import main
from openltx.media.io import read_metadata

LINE = ["a red ball", "--frames", "9", "--size", "96x64", "--seed", "3"]


@pytest.fixture
def release(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny model under the name of a distilled release."""
    return Path(shutil.copy(tiny_checkpoint, tmp_path / "ltxv-2b-0.9.8-distilled.safetensors"))


def run(release: Path, *words: str | Path) -> int:
    return main(
        ["generate", *LINE, "--model", str(release), "-o", str(release.with_name("video.mp4")), *map(str, words)]
    )


def test_without_its_upscaler_it_says_what_to_pull(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(release) == 2
    assert "openltx pull ltxv-spatial-upscaler-0.9.8" in capsys.readouterr().err
    assert not release.with_name("video.mp4").exists()


def test_with_an_upscaler_both_passes_are_the_release_s_own(release: Path, upscaler_files: dict[str, Path]) -> None:
    assert run(release, "--upscaler", upscaler_files["space"]) == 0
    passes = json.loads(read_metadata(release.with_name("video.mp4"))["two_pass"])
    assert passes["first"]["times"] == [1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725]
    assert passes["second"]["times"] == [0.9094, 0.725, 0.4219]


def test_a_single_pass_needs_no_upscaler(release: Path) -> None:
    assert run(release, "--single-pass") == 0
    assert "two_pass" not in read_metadata(release.with_name("video.mp4"))
