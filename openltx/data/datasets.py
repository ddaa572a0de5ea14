"""Clips from disk as training batches, each a pure function of (seed, step, micro): resuming needs no loader state.

A ``Curriculum`` says what a batch holds at each step: images first (the first frame has a latent of its own, so an
image is a full sample of the spatial problem at a fraction of the cost), then longer and longer clips.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openltx.data.manifest import Clip, read_manifest
from openltx.errors import DataError
from openltx.media.io import read_video
from openltx.media.transforms import to_tensor


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What batches hold until step ``until``: ``clips`` files, ``per_clip`` spans of ``frames`` frames from each."""

    until: int
    clips: int
    frames: int
    per_clip: int = 1


class ClipBatches:
    """Batches of a clip folder's split: spans at random times, at a random temporal stride, randomly mirrored."""

    def __init__(
        self, folder: Path, stages: Sequence[Stage], *, seed: int, split: str = "train", max_stride: int = 1
    ) -> None:
        self.folder = folder
        self.stages = tuple(stages)
        self.seed = seed
        self.max_stride = max_stride
        self.clips = clips_of(folder, split)

    @property
    def settings(self) -> Mapping[str, object]:
        """What decides the content of batches."""
        return {"stages": [asdict(s) for s in self.stages], "max_stride": self.max_stride, "clips": len(self.clips)}

    def stage(self, step: int) -> Stage:
        """The stage that ``step`` belongs to; the last one has no end."""
        index = bisect.bisect_right([stage.until for stage in self.stages], step)
        return self.stages[min(index, len(self.stages) - 1)]

    def batch(self, step: int, micro: int) -> Float[Tensor, "b 3 F H W"]:
        """The videos of a step, in [-1, 1]."""
        stage = self.stage(step)
        rng = np.random.default_rng([self.seed, step, micro])
        spans = []
        for index in rng.choice(len(self.clips), stage.clips, replace=len(self.clips) < stage.clips):
            frames = read_clip(self.folder, self.clips[index])
            spans += [self._span(frames, stage.frames, rng) for _ in range(stage.per_clip)]
        return torch.stack(spans)

    def _span(self, frames: UInt8[np.ndarray, "F H W 3"], count: int, rng: np.random.Generator) -> Tensor:
        longest = (len(frames) - 1) // max(count - 1, 1)
        stride = int(rng.integers(1, max(1, min(self.max_stride, longest)) + 1))
        start = int(rng.integers(len(frames) - (count - 1) * stride))
        video = to_tensor(frames[start : start + (count - 1) * stride + 1 : stride])
        return video.flip(-1) if rng.random() < 0.5 else video


def clips_of(folder: Path, split: str) -> list[Clip]:
    """The clips of a split; ``DataError`` if the folder holds none."""
    clips = [clip for clip in read_manifest(folder) if clip.split == split]
    if not clips:
        raise DataError(
            f'{folder} holds no clips of the split "{split}". Make some: openltx data world playroom --help'
        )
    return clips


def read_clip(folder: Path, clip: Clip) -> UInt8[np.ndarray, "F H W 3"]:
    """All frames of a clip."""
    frames, _ = read_video(folder / clip.path)
    return frames
