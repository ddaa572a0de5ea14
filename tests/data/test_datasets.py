"""Clip batches are pure functions of (seed, step, micro) and follow the curriculum."""

from pathlib import Path

import pytest
import torch

from openltx.data.datasets import ClipBatches, Stage, clips_of, read_clip
from openltx.data.manifest import Clip, append_clip
from openltx.errors import DataError

STAGES = (Stage(until=2, clips=2, frames=1, per_clip=3), Stage(until=4, clips=2, frames=9))


def test_batches_follow_the_stages_and_the_last_has_no_end(clip_folder: Path) -> None:
    batches = ClipBatches(clip_folder, STAGES, seed=1)
    assert batches.batch(1, 0).shape == (6, 3, 1, 32, 64)
    assert batches.batch(2, 0).shape == (2, 3, 9, 32, 64)
    assert batches.batch(99, 0).shape == (2, 3, 9, 32, 64)


def test_a_batch_depends_on_seed_step_and_micro_only(clip_folder: Path) -> None:
    first, second = (ClipBatches(clip_folder, STAGES, seed=1) for _ in range(2))
    second.batch(7, 0)
    assert torch.equal(first.batch(3, 1), second.batch(3, 1))
    assert not torch.equal(first.batch(3, 1), first.batch(3, 0))
    assert not torch.equal(first.batch(3, 1), ClipBatches(clip_folder, STAGES, seed=2).batch(3, 1))


def test_a_stride_of_two_sees_every_other_frame(clip_folder: Path) -> None:
    plain = ClipBatches(clip_folder, (Stage(until=1, clips=1, frames=9),), seed=0)
    fast = ClipBatches(clip_folder, (Stage(until=1, clips=1, frames=9),), seed=0, max_stride=2)

    def speed(video: torch.Tensor) -> float:
        return float((video[0, :, 8] - video[0, :, 0]).abs().mean())

    assert max(speed(fast.batch(i, 0)) for i in range(8)) > max(speed(plain.batch(i, 0)) for i in range(8))


def test_training_clips_are_never_held_out_ones(clip_folder: Path) -> None:
    train = {clip.path for clip in clips_of(clip_folder, "train")}
    heldout = {clip.path for clip in clips_of(clip_folder, "heldout")}
    assert len(train) == 6
    assert not train & heldout
    assert read_clip(clip_folder, clips_of(clip_folder, "train")[1]).shape == (25, 32, 64, 3)


def test_a_folder_without_clips_of_a_split_says_what_to_do(clip_folder: Path, tmp_path: Path) -> None:
    clip = clips_of(clip_folder, "train")[0]
    append_clip(tmp_path, Clip(**vars(clip)))
    with pytest.raises(DataError, match="openltx data world playroom"):
        clips_of(tmp_path, "heldout")
