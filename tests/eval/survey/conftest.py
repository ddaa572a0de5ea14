"""Small studies: videos of plain colours under the names of models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openltx.eval.survey.study import Study, create_study
from openltx.eval.videos import Entry, Prompt, read_videos
from openltx.media.io import write_video

MODELS = ("alpha", "beta", "gamma")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Entry]]:
    """Three models, three videos each; every file names its model in its metadata."""
    found = {}
    for place, model in enumerate(MODELS):
        folder = tmp_path_factory.mktemp(model)
        for index in range(3):
            frames = np.random.default_rng(index).integers(60 * place, 60 * place + 60, (9, 32, 48, 3), dtype=np.uint8)
            write_video(folder / f"{index}.mp4", frames, 8.0, {"model": model})
        found[model] = read_videos(folder, [Prompt(text=f"prompt {index}") for index in range(3)])
    return found


@pytest.fixture
def make_study(sets: dict[str, list[Entry]], tmp_path: Path) -> Callable[..., tuple[Path, Study]]:
    def make(raters: int = 2, comparisons: int = 18, seed: int = 0) -> tuple[Path, Study]:
        folder = tmp_path / f"study-{raters}-{comparisons}-{seed}"
        made = create_study(folder, sets, raters=raters, comparisons=comparisons, seed=seed, progress=lambda *_: None)
        return folder, made

    return make
