"""Clip batches are pure functions of (seed, step, micro) and follow the curriculum."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.data.datasets import ClipBatches, Draw, Stage, clips_of, read_clip
from openltx.data.manifest import Clip, append_clip
from openltx.errors import DataError
from openltx.media.io import write_video

STAGES = (
    Stage(until=2, draws=(Draw(clips=2, frames=1, per_clip=3),)),
    Stage(until=4, draws=(Draw(clips=2, frames=9),)),
)


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
    plain = ClipBatches(clip_folder, (Stage(until=1, draws=(Draw(clips=1, frames=9),)),), seed=0)
    fast = ClipBatches(clip_folder, (Stage(until=1, draws=(Draw(clips=1, frames=9),)),), seed=0, max_stride=2)

    def speed(video: torch.Tensor) -> float:
        return float((video[0, :, 8] - video[0, :, 0]).abs().mean())

    assert max(speed(fast.batch(i, 0)) for i in range(8)) > max(speed(plain.batch(i, 0)) for i in range(8))


def test_a_stage_mixes_images_and_videos_of_several_sizes(clip_folder: Path) -> None:
    draws = (
        Draw(clips=2, frames=1, share=1.0),
        Draw(clips=1, frames=17, share=2.0),
        Draw(clips=1, frames=9, size=(32, 32)),
    )
    batches = ClipBatches(clip_folder, (Stage(until=1, draws=draws),), seed=0)
    shapes = [tuple(batches.batch(step, 0).shape) for step in range(40)]
    assert set(shapes) == {(2, 3, 1, 32, 64), (1, 3, 17, 32, 64), (1, 3, 9, 32, 32)}
    assert shapes.count((1, 3, 17, 32, 64)) > shapes.count((2, 3, 1, 32, 64))


def test_batches_come_from_folders_by_their_shares_and_never_mix_them(clip_folder: Path, tmp_path: Path) -> None:
    for i in range(3):
        write_video(tmp_path / f"{i}.mp4", np.full((9, 64, 32, 3), 80 * i, np.uint8), 24.0)
        append_clip(
            tmp_path, replace(clips_of(clip_folder, "train")[0], path=f"{i}.mp4", frames=9, height=64, width=32)
        )
    batches = ClipBatches(
        {clip_folder: 1.0, tmp_path: 3.0}, (Stage(until=1, draws=(Draw(clips=2, frames=9),)),), seed=0
    )
    tall = [batches.batch(step, 0).shape[-1] == 32 for step in range(40)]
    assert 20 < sum(tall) < 40
    longer = ClipBatches(
        {clip_folder: 1.0, tmp_path: 3.0}, (Stage(until=1, draws=(Draw(clips=2, frames=17),)),), seed=0
    )
    assert all(longer.batch(step, 0).shape[-1] == 64 for step in range(5))


def test_a_stage_that_no_clip_can_serve_is_refused_with_what_there_is(clip_folder: Path) -> None:
    batches = ClipBatches(clip_folder, (Stage(until=1, draws=(Draw(clips=1, frames=9, size=(64, 64)),)),), seed=0)
    with pytest.raises(DataError, match="6 clips of 32x64 with up to 25 frames"):
        batches.batch(0, 0)


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
