"""Clips from disk as training batches, each a pure function of (seed, step, micro): resuming needs no loader state.

A curriculum of stages says what batches hold: images first (the first frame has a latent of its own, so an image is a
full sample of the spatial problem at a fraction of the cost), then longer and longer clips. A stage may mix several
kinds of batch, images and videos, sizes and lengths (paper section 2.5), and batches come from one or more folders;
all videos of one batch have the same shape and come from one folder.
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
class Draw:
    """One kind of batch: ``clips`` files, ``per_clip`` spans of ``frames`` frames from each."""

    clips: int
    frames: int
    per_clip: int = 1
    size: tuple[int, int] | None = None  # (height, width) of a window at a random place; None takes whole frames
    share: float = 1.0  # of the stage's batches, relative to its other draws


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The kinds of batch until step ``until``."""

    until: int
    draws: tuple[Draw, ...]

    @property
    def is_of_images(self) -> bool:
        """Whether every batch holds single frames."""
        return all(draw.frames == 1 for draw in self.draws)


class ClipBatches:
    """Batches of one split of clip folders: spans at random times, at a random temporal stride, randomly mirrored."""

    def __init__(
        self,
        folders: Path | Mapping[Path, float],
        stages: Sequence[Stage],
        *,
        seed: int,
        split: str = "train",
        max_stride: int = 1,
    ) -> None:
        """``folders``: one, or several with the share of batches that each gives."""
        self.shares = {folders: 1.0} if isinstance(folders, Path) else dict(folders)
        self.stages = tuple(stages)
        self.seed = seed
        self.max_stride = max_stride
        self.groups = [group for folder in self.shares for group in _groups(folder, clips_of(folder, split))]
        totals = {folder: sum(len(g.clips) for g in self.groups if g.folder == folder) for folder in self.shares}
        self.weights = np.array([self.shares[g.folder] * len(g.clips) / totals[g.folder] for g in self.groups])

    @property
    def settings(self) -> Mapping[str, object]:
        """What decides the content of batches."""
        counts = [f"{len(g.clips)} of {g.size[0]}x{g.size[1]}" for g in self.groups]
        shares = list(self.shares.values())
        return {"stages": [asdict(s) for s in self.stages], "max_stride": self.max_stride} | {
            "clips": counts,
            "shares": shares,
        }

    def stage(self, step: int) -> Stage:
        """The stage that ``step`` belongs to; the last one has no end."""
        index = bisect.bisect_right([stage.until for stage in self.stages], step)
        return self.stages[min(index, len(self.stages) - 1)]

    def batch(self, step: int, micro: int) -> Float[Tensor, "b 3 F H W"]:
        """The videos of a step, in [-1, 1]."""
        rng = np.random.default_rng([self.seed, step, micro])
        draws = self.stage(step).draws
        draw = draws[_choose(rng, [d.share for d in draws])]
        group = self._group(draw, rng)
        spans = []
        for index in rng.choice(len(group.clips), draw.clips, replace=len(group.clips) < draw.clips):
            frames = read_clip(group.folder, group.clips[index])
            spans += [self._span(frames, draw, rng) for _ in range(draw.per_clip)]
        return torch.stack(spans)

    def _group(self, draw: Draw, rng: np.random.Generator) -> "_Group":
        """A folder's clips of one size, long and large enough for the draw."""
        found = [(g, w) for g, w in zip((g.fitting(draw) for g in self.groups), self.weights, strict=True) if g.clips]
        if not found:
            raise DataError(
                f"No clip has {draw.frames} frames{f' of at least {draw.size}' if draw.size else ''}, which a training "
                f"stage asks for; the data holds: {', '.join(str(g) for g in self.groups)}."
            )
        return found[_choose(rng, [weight for _, weight in found])][0]

    def _span(self, frames: UInt8[np.ndarray, "F H W 3"], draw: Draw, rng: np.random.Generator) -> Tensor:
        longest = (len(frames) - 1) // max(draw.frames - 1, 1)
        stride = int(rng.integers(1, max(1, min(self.max_stride, longest)) + 1))
        start = int(rng.integers(len(frames) - (draw.frames - 1) * stride))
        span = frames[start : start + (draw.frames - 1) * stride + 1 : stride]
        if draw.size is not None:
            top, left = (
                int(rng.integers(have - want + 1)) for have, want in zip(span.shape[1:3], draw.size, strict=True)
            )
            span = span[:, top : top + draw.size[0], left : left + draw.size[1]]
        video = to_tensor(span)
        return video.flip(-1) if rng.random() < 0.5 else video


@dataclass(frozen=True)
class _Group:
    """Clips of one folder and one size."""

    folder: Path
    size: tuple[int, int]
    clips: Sequence[Clip]

    def fitting(self, draw: Draw) -> "_Group":
        """Those that hold a span of the draw."""
        if draw.size is not None and (draw.size[0] > self.size[0] or draw.size[1] > self.size[1]):
            return _Group(self.folder, self.size, ())
        return _Group(self.folder, self.size, [clip for clip in self.clips if clip.frames >= draw.frames])

    def __str__(self) -> str:
        longest = max(clip.frames for clip in self.clips)
        return f"{len(self.clips)} clips of {self.size[0]}x{self.size[1]} with up to {longest} frames in {self.folder}"


def _groups(folder: Path, clips: Sequence[Clip]) -> list[_Group]:
    sizes = sorted({(clip.height, clip.width) for clip in clips})
    return [_Group(folder, size, [c for c in clips if (c.height, c.width) == size]) for size in sizes]


def _choose(rng: np.random.Generator, shares: Sequence[float]) -> int:
    """An index, with probability in proportion to its share; the generator is left alone where there is no choice."""
    if len(shares) == 1:
        return 0
    return int(rng.choice(len(shares), p=np.asarray(shares) / np.sum(shares)))


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
