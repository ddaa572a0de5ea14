"""The official package beside openltx, for whole generations; tests that need it are skipped where it is missing."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from openltx.media.io import write_video


@pytest.fixture(scope="session")
def official() -> ModuleType:
    """``official.py`` in this folder, which imports the official package."""
    pytest.importorskip("ltx_video", reason="the official package is missing: pip install --no-deps ltx-video==0.1.2")
    spec = importlib.util.spec_from_file_location("official", Path(__file__).with_name("official.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pairs(official: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """The pair of a release by name, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("official")

    @functools.cache
    def pair(release: str) -> object:
        path = folder / f"{release}.safetensors"
        official.write_file(path, release)
        return official.Pair(path)

    return pair


@pytest.fixture(scope="session")
def media(official: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures a.png and b.png, and clips of 17 and 25 frames, in the size of the video."""
    folder = tmp_path_factory.mktemp("media")

    def frames(count: int, seed: int) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(0, 255, (count, official.HEIGHT // 16, official.WIDTH // 16, 3))
        return coarse.astype(np.uint8).repeat(16, 1).repeat(16, 2)

    for seed, name in enumerate("ab"):
        Image.fromarray(frames(1, seed)[0]).save(folder / f"{name}.png")
    for count in (17, 25):
        write_video(folder / f"{count}.mp4", frames(count, count), official.FPS)
    return folder
