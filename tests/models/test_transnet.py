"""TransNetV2: a whole video is seen in windows, each frame once; its probabilities become the first frames of shots."""

from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.checkpoints.assets import load_transnet
from openltx.data.shots import Shot, cuts_of, find_shots
from openltx.errors import AssetError
from openltx.media.io import write_video
from openltx.models.transnet import TransNetV2


def test_windows_give_each_frame_one_probability_that_its_own_window_gives() -> None:
    torch.manual_seed(0)
    network = TransNetV2()
    frames = torch.randint(0, 256, (130, 27, 48, 3), dtype=torch.uint8)
    found = network.probabilities(frames)
    assert found.shape == (130,)
    alone = network(frames[None, 25:125]).sigmoid()[0]
    assert torch.allclose(found[50:100], alone[25:75], atol=1e-6)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_616_258


def test_probabilities_become_first_frames() -> None:
    probabilities = np.zeros(30)
    probabilities[[9]] = 0.9
    probabilities[15:20] = 0.7
    probabilities[29] = 0.2
    assert cuts_of(probabilities) == [10, 18]


def test_cuts_are_found_with_the_published_weights(tmp_path: Path) -> None:
    try:
        load_transnet()
    except AssetError:
        pytest.skip("openltx assets pull transnet-v2")
    pictures = [np.random.default_rng(seed).integers(0, 256, (6, 9, 3)).repeat(12, 0).repeat(12, 1) for seed in (1, 2)]
    frames = np.stack([pictures[0]] * 14 + [pictures[1]] * 16).astype(np.uint8)
    write_video(tmp_path / "a.mp4", frames, 24.0)
    assert find_shots(tmp_path / "a.mp4", detector="transnet") == [Shot(first=0, frames=14), Shot(first=14, frames=16)]
