"""What a frozen ImageNet classifier sees in a clip: features of all depths for the ranker, and labels for the pairs.

Two frames of a clip are looked at, each whole and as its middle in full size, where blur and compression show. Early
layers tell how a picture is made, late ones what it shows: mean and deviation over the picture of six layers, and the
pooled last one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from openltx.data.manifest import Clip
from openltx.media.contact_sheet import evenly_spaced
from openltx.media.io import read_video
from openltx.models.mobilenet import FEATURES, SIDE, MobileNetV2

TAPS = (1, 3, 6, 10, 13, 16)  # after the last block of each width
TAP_CHANNELS = (16, 24, 32, 64, 96, 160)
PARTS = 2 * (*(channels for channels in TAP_CHANNELS for _ in ("mean", "deviation")), FEATURES)
"""How many features come from each layer: of whole frames, then of their middles."""
WIDTH = sum(PARTS)
LABELS = 3
BLOCK = 32  # clips between two writes of the features' file


def views(frames: UInt8[np.ndarray, "k _ _ 3"]) -> UInt8[np.ndarray, "2 2 224 224 3"]:
    """Of two of the frames: the whole, scaled, and the middle, as it is."""
    import cv2

    first, last = evenly_spaced(len(frames), 4)[1:3] if len(frames) > 3 else (0, len(frames) - 1)
    found = []
    for frame in (frames[first], frames[last]):
        height, width = frame.shape[:2]
        top, left = max((height - SIDE) // 2, 0), max((width - SIDE) // 2, 0)
        middle = frame[top : top + SIDE, left : left + SIDE]
        found.append([cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for part in (frame, middle)])
    return np.array(found, np.uint8)


@torch.inference_mode()
def describe(network: MobileNetV2, seen: UInt8[np.ndarray, "2 2 224 224 3"]) -> tuple[Float[Tensor, "d"], list[int]]:
    """A clip's features, and its three labels, the likeliest first."""
    device = network.mean.device
    images = torch.from_numpy(seen).to(device).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    x = (images - network.mean) / network.deviation
    parts = []
    for depth, layer in enumerate(network.features):
        x = layer(x)
        if depth in TAPS:
            parts += [x.mean((2, 3)), x.std((2, 3))]
    pooled = x.mean((2, 3))
    found = torch.cat([*parts, pooled], 1).unflatten(0, (2, 2)).mean(0).flatten()
    logits = network.classifier(pooled).unflatten(0, (2, 2))[:, 0].mean(0)
    return found.cpu(), logits.topk(LABELS).indices.tolist()


@cache
def classifier() -> MobileNetV2:
    """MobileNetV2 with its weights, on an accelerator if there is one; ``AssetError`` if they are not here."""
    from openltx.checkpoints.assets import load_mobilenet

    return load_mobilenet().to("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Described:
    """Features and labels of the clips of a set, in the order of ``paths``."""

    paths: list[str]
    features: Float[Tensor, "n d"]
    labels: Int[Tensor, "n 3"]


def describe_clips(
    folder: Path, clips: Sequence[Clip], cache_file: Path, progress: Callable[[int, int], None] = lambda *_: None
) -> Described:
    """The features of clip files, those of a former run from ``cache_file``; a stopped run goes on where it stopped."""
    known = _read(cache_file) if cache_file.is_file() else {}
    missing = [clip for clip in clips if clip.path not in known]
    progress(len(clips) - len(missing), len(clips))
    for number, clip in enumerate(missing):
        frames, _ = read_video(folder / clip.path)
        known[clip.path] = describe(classifier(), views(frames[evenly_spaced(len(frames), 5)]))
        if number % BLOCK == BLOCK - 1 or number == len(missing) - 1:
            _write(cache_file, known)
        progress(len(clips) - len(missing) + number + 1, len(clips))
    return Described(
        paths=[clip.path for clip in clips],
        features=torch.stack([known[clip.path][0] for clip in clips]),
        labels=torch.tensor([known[clip.path][1] for clip in clips]),
    )


def _write(path: Path, known: dict[str, tuple[Tensor, list[int]]]) -> None:
    tensors = {f"{name}|features": features for name, (features, _) in known.items()}
    tensors |= {f"{name}|labels": torch.tensor(labels) for name, (_, labels) in known.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial)
    partial.replace(path)


def _read(path: Path) -> dict[str, tuple[Tensor, list[int]]]:
    with safe_open(path, framework="pt") as file:
        names = [key.removesuffix("|labels") for key in file.keys() if key.endswith("|labels")]  # noqa: SIM118 (no dict)
        return {
            name: (file.get_tensor(f"{name}|features"), file.get_tensor(f"{name}|labels").tolist()) for name in names
        }
