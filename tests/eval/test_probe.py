"""The probe: what it is asked to learn can be read back, it learns, and the bundled weights are small and whole."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.data.worlds.playroom.scene import SHAPES
from openltx.eval.probe import (
    CELL,
    WEIGHTS,
    Example,
    Probe,
    augmented,
    detect,
    examples_of,
    load_probe,
    peaks,
    save_probe,
    targets_of,
    train,
)

SOLIDS = ((30.2, 50.9, 12.0, 1), (86.7, 71.5, 20.0, 4))


def as_maps(heat: torch.Tensor, regression: torch.Tensor, shapes: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """The maps of a network that has learned its targets perfectly, for one frame."""
    named = torch.nn.functional.one_hot(shapes, len(SHAPES)).permute(0, 3, 1, 2) * 20.0
    return torch.cat([heat.clamp(1e-4, 1 - 1e-4).logit()[:, None], regression, named], dim=1)[0]


def test_reading_out_undoes_the_targets() -> None:
    found = peaks(as_maps(*targets_of([SOLIDS], 32, 32)), threshold=0.3, most=3)
    read = sorted((d.x, d.y, d.radius, int(np.argmax(d.shapes))) for d in found)
    assert len(read) == 2
    for solid, expected in zip(read, SOLIDS, strict=True):
        assert solid == pytest.approx(expected, abs=1e-3)


def test_the_surest_detections_come_first_and_no_more_than_asked() -> None:
    maps = as_maps(*targets_of([SOLIDS], 32, 32))
    maps[0] -= torch.arange(32) / 8
    assert [round(d.x) for d in peaks(maps, threshold=0.001, most=3)] == [30, 87]
    assert [round(d.x) for d in peaks(maps, threshold=0.001, most=1)] == [30]


def test_mirrored_frames_have_mirrored_targets() -> None:
    example = Example(frame=np.zeros((128, 128, 3), np.uint8), solids=SOLIDS[:1])
    columns = set()
    for seed in range(6):
        _, (heat, _, _, _) = augmented([example], np.random.default_rng(seed))
        columns.add(int(heat[0].max(dim=0).values.argmax()))
    assert columns == {int(30.2 / CELL), int((128 - 30.2) / CELL)}


def test_training_lowers_the_loss() -> None:
    random = np.random.default_rng(0)
    examples = []
    for _ in range(8):
        x, y = random.uniform(20, 44, 2)
        frame = np.full((64, 64, 3), 120, np.uint8)
        frame[int(y) - 8 : int(y) + 8, int(x) - 8 : int(x) + 8] = (220, 40, 40)
        examples.append(Example(frame=frame, solids=((x, y, 9.0, 1),)))
    losses = [loss for _, loss, _ in train(examples, steps=25, batch=4)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_examples_carry_the_truth_of_their_own_frame(clip_folder: Path) -> None:
    examples = list(examples_of(clip_folder, clips=3, frames_per_clip=2))
    assert len(examples) == 6
    assert all(0 <= shape < len(SHAPES) for example in examples for *_, shape in example.solids)


def test_saved_weights_come_back_within_half_precision(tmp_path: Path) -> None:
    probe = Probe().eval()
    save_probe(probe, tmp_path / "probe.safetensors")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    loaded = load_probe(tmp_path / "probe.safetensors")
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(loaded(x), probe(x), rtol=0.02, atol=0.02)


def test_bundled_weights_load_and_are_at_most_a_megabyte() -> None:
    assert (resources.files("openltx") / "bundled" / WEIGHTS).stat().st_size < 1e6  # type: ignore[attr-defined]
    assert detect(load_probe(), np.full((1, 128, 128, 3), 128, np.uint8)) == [[]]
