"""The probe: a small convolutional network that finds the solids in a frame and names their shapes.

It is trained on rendered Playroom frames and their truth, and never sees a generated one; what the generator makes is
therefore judged by something that does not come from it. For every cell of a grid of a quarter of the frame's size it
gives how sure it is that a solid's centre lies there, the exact place, the apparent radius, and the shape. (The way of
Zhou et al. 2019, "Objects as Points".) Colour and motion are judged elsewhere, from the pixels (`segment`, `tracking`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openltx.data.manifest import Clip, read_manifest
from openltx.data.worlds.playroom.scene import SHAPES
from openltx.media.io import read_video

CELL = 4  # pixels a grid cell
WEIGHTS = "playroom/probe.safetensors"


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One solid in one frame: centre and radius in pixels, how sure, and a probability per shape (order of SHAPES)."""

    x: float
    y: float
    radius: float
    score: float
    shapes: tuple[float, ...]


class Probe(nn.Module):
    """Frames to maps: a branch of a quarter of the size for place, and of an eighth and a sixteenth for context."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 16, stride=2), convolution(16, 32, stride=2), convolution(32, 48))
        self.middle = nn.Sequential(convolution(48, 64, stride=2), convolution(64, 64))
        self.deep = nn.Sequential(convolution(64, 64, stride=2), convolution(64, 64))
        self.join_middle = convolution(64, 64)
        self.lift = nn.Conv2d(64, 48, 1)
        self.join = convolution(48, 48)
        self.head = nn.Conv2d(48, 4 + len(SHAPES), 1)
        nn.init.constant_(self.head.bias[:1], -4.0)  # type: ignore[index]

    def forward(self, frames: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b k h w"]:
        """Maps at a quarter of the size of frames in [-1, 1]: objectness logit, offset x and y, log radius, shapes."""
        fine = self.stem(frames)
        middle = self.middle(fine)
        deep = F.interpolate(self.deep(middle), size=middle.shape[-2:], mode="nearest")
        context = F.interpolate(self.lift(self.join_middle(middle + deep)), size=fine.shape[-2:], mode="nearest")
        return self.head(self.join(fine + context))


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """3x3 convolution, group norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(outputs // 8, outputs), nn.SiLU()
    )


@torch.inference_mode()
def detect(
    probe: Probe, frames: UInt8[np.ndarray, "F H W 3"], *, threshold: float = 0.3, most: int = 3
) -> list[list[Detection]]:
    """For every frame, its solids from the surest to the least sure, at most ``most``."""
    found = []
    for start in range(0, len(frames), 16):
        maps = probe(as_input(frames[start : start + 16]))
        found += [peaks(frame_maps, threshold, most) for frame_maps in maps]
    return found


def peaks(maps: Float[Tensor, "k h w"], threshold: float, most: int) -> list[Detection]:
    """The local maxima of one frame's objectness, read out."""
    objectness = maps[0].sigmoid()
    largest = F.max_pool2d(objectness[None, None], 5, stride=1, padding=2)[0, 0]
    places = ((objectness == largest) & (objectness > threshold)).nonzero()
    order = objectness[places[:, 0], places[:, 1]].argsort(descending=True)[:most]
    found = []
    for row, column in places[order].tolist():
        values = maps[:, row, column]
        found.append(
            Detection(
                x=(column + 0.5 + values[1].item()) * CELL,
                y=(row + 0.5 + values[2].item()) * CELL,
                radius=values[3].exp().item() * CELL,
                score=objectness[row, column].item(),
                shapes=tuple(values[4:].softmax(0).tolist()),
            )
        )
    return found


def as_input(frames: UInt8[np.ndarray, "F H W 3"]) -> Float[Tensor, "F 3 H W"]:
    """uint8 frames to the network's input in [-1, 1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "f h w c -> f c h w").float() / 127.5 - 1


def load_probe(path: Path | None = None) -> Probe:
    """The probe that comes with the package, or one from a file that ``train`` wrote."""
    probe = Probe().eval()
    if path is not None:
        tensors = load_file(path)
    else:
        with resources.as_file(resources.files("openltx") / "bundled" / WEIGHTS) as bundled:
            tensors = load_file(bundled)
    probe.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return probe


def save_probe(probe: Probe, path: Path) -> None:
    """Write the weights in half precision (about 0.5 MB), atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    save_file({name: tensor.half().contiguous() for name, tensor in probe.state_dict().items()}, partial)
    partial.chmod(0o644)  # safetensors writes files that only their owner can read
    partial.replace(path)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A rendered frame and the solids in view: (x, y, radius, index of the shape) each."""

    frame: UInt8[np.ndarray, "H W 3"]
    solids: tuple[tuple[float, float, float, int], ...]


def examples_of(folder: Path, *, clips: int, frames_per_clip: int = 8, seed: int = 0) -> Iterator[Example]:
    """Frames at random times from the first ``clips`` training clips of a rendered folder."""
    random = np.random.default_rng(seed)
    for clip in read_manifest(folder, "train")[:clips]:
        frames, _ = read_video(folder / clip.path)
        for index in random.choice(len(frames), min(frames_per_clip, len(frames)), replace=False):
            yield Example(frame=frames[index].copy(), solids=solids_in_view(clip, int(index)))


def solids_in_view(clip: Clip, frame: int) -> tuple[tuple[float, float, float, int], ...]:
    """The truth of one frame, from the tracks of the manifest."""
    pairs = zip(clip.truth["objects"], clip.truth["tracks"], strict=True)
    return tuple((*track[frame], SHAPES.index(item["shape"])) for item, track in pairs if track[frame] is not None)


def train(
    examples: Sequence[Example], *, steps: int = 1500, batch: int = 24, seed: int = 0
) -> Iterator[tuple[int, float, Probe]]:
    """Train a probe, yielding (step, loss, probe) after every step."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    probe = Probe().train()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        chosen = [examples[i] for i in random.integers(len(examples), size=batch)]
        frames, targets = augmented(chosen, random)
        value = loss(probe(frames), *targets)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step + 1, value.item(), probe


Targets = tuple[Tensor, Tensor, Tensor, Tensor]


def augmented(examples: Sequence[Example], random: np.random.Generator) -> tuple[Tensor, Targets]:
    """A batch for the network: mirrored, re-lit, blurred and noisy at random, since generated frames are softer."""
    frames = as_input(np.stack([example.frame for example in examples]))
    width = frames.shape[-1]
    solids = [example.solids for example in examples]
    for i in range(len(examples)):
        if random.random() < 0.5:
            frames[i] = frames[i].flip(-1)
            solids[i] = tuple((width - x, y, r, shape) for x, y, r, shape in solids[i])
        if random.random() < 0.4:
            size = int(frames.shape[-2] / random.uniform(1.3, 3.0)), int(width / random.uniform(1.3, 3.0))
            small = F.interpolate(frames[i : i + 1], size=size, mode="bilinear", antialias=True)
            frames[i] = F.interpolate(small, size=frames.shape[-2:], mode="bilinear")[0]
        if random.random() < 0.5:
            frames[i] += torch.randn(frames[i].shape) * random.uniform(0, 0.12)
    contrast = torch.from_numpy(random.uniform(0.8, 1.2, (len(examples), 1, 1, 1))).float()
    brightness = torch.from_numpy(random.uniform(-0.15, 0.15, (len(examples), 3, 1, 1))).float()
    return frames * contrast + brightness, targets_of(solids, frames.shape[-2] // CELL, width // CELL)


def targets_of(solids: Sequence[tuple[tuple[float, float, float, int], ...]], rows: int, columns: int) -> Targets:
    """Objectness (b h w), regression (b 3 h w), shape (b h w) and where the last two count (b h w)."""
    heat, near = torch.zeros(len(solids), rows, columns), torch.zeros(len(solids), rows, columns, dtype=torch.bool)
    regression = torch.zeros(len(solids), 3, rows, columns)
    shapes = torch.zeros(len(solids), rows, columns, dtype=torch.long)
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    for i, of_frame in enumerate(solids):
        for centre_x, centre_y, radius, shape in of_frame:
            dx, dy = centre_x / CELL - x, centre_y / CELL - y
            squared = dx**2 + dy**2
            heat[i] = torch.maximum(heat[i], torch.exp(-squared / 2))
            close = squared < 2.3
            near[i] |= close
            shapes[i][close] = shape
            log_radius = torch.full_like(dx, max(radius / CELL, 0.25)).log()
            regression[i][:, close] = torch.stack([dx, dy, log_radius])[:, close]
    return heat, regression, shapes, near


def loss(
    maps: Float[Tensor, "b k h w"],
    heat: Float[Tensor, "b h w"],
    regression: Float[Tensor, "b 3 h w"],
    shapes: Tensor,
    near: Tensor,
) -> Float[Tensor, ""]:
    """Cross-entropy of objectness everywhere; place, radius and shape near the centres."""
    objectness = F.binary_cross_entropy_with_logits(maps[:, 0], heat, reduction="sum") / len(maps) / 10
    at = near.float()
    count = at.sum().clamp_min(1)
    place = (F.smooth_l1_loss(maps[:, 1:4], regression, reduction="none", beta=0.25).sum(1) * at).sum() / count
    named = (F.cross_entropy(maps[:, 4:], shapes, reduction="none") * at).sum() / count
    return objectness + place + named
