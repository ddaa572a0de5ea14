"""The aesthetic ranker on orders that are known: a clean clip against the same clip made worse, in five ways.

Clips are held out with all that was made of them. Then each kind in turn is left out of the training and measured.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter

from openltx.data.aesthetic.features import classifier, describe, views
from openltx.data.aesthetic.ranker import HELDOUT_SHARE, Pair, accuracy, score, train_ranker


def known_orders(clips: Sequence[np.ndarray], seed: int = 0) -> None:
    """Print the accuracies. ``clips``: uint8 F H W 3."""
    rng = np.random.default_rng(seed)
    network = classifier()
    features, pairs = [], []
    for number, clip in enumerate(clips):
        keys = clip[np.linspace(0, len(clip) - 1, 5).round().astype(int)]
        clean = len(features)
        features.append(describe(network, views(keys))[0])
        for kind, worsen in KINDS.items():
            for _ in range(2):
                strength = rng.uniform(0.25, 1.0)
                pairs.append((kind, number, (clean, len(features))))
                features.append(describe(network, views(np.stack([worsen(key, strength) for key in keys])))[0])
    held = set(rng.permutation(len(clips))[: round(HELDOUT_SHARE * len(clips))].tolist())
    table = torch.stack(features)

    def chosen(is_held: bool, kinds: Sequence[str]) -> list[Pair]:
        return [pair for kind, number, pair in pairs if (number in held) == is_held and kind in kinds]

    scores = score(train_ranker(table, chosen(False, list(KINDS))), table)
    print(f"{len(clips)} clips, {len(held)} of them held out; {len(pairs)} pairs")
    print(f"all kinds: {accuracy(scores, chosen(True, list(KINDS)))}")
    for kind in KINDS:
        print(f"    {kind}: {accuracy(scores, chosen(True, [kind]))}")
    print("kinds that were not trained on:")
    unseen = np.zeros(2, int)
    for kind in KINDS:
        others = [other for other in KINDS if other != kind]
        found = accuracy(score(train_ranker(table, chosen(False, others)), table), chosen(True, [kind]))
        unseen += (round(found.share * found.pairs), found.pairs)
        print(f"    {kind}: {found}")
    print(f"    all: {unseen[0] / unseen[1]:.3f} of {unseen[1]} pairs")


def _blurred(frame: np.ndarray, strength: float) -> np.ndarray:
    return np.array(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(4 * strength)))


def _badly_exposed(frame: np.ndarray, strength: float) -> np.ndarray:
    """Too dark or too light, by the last of three digits of the strength."""
    if int(1000 * strength) % 2:
        return (255 * (frame / 255) ** (1 + 2 * strength)).astype(np.uint8)
    return (frame * (1 + 1.2 * strength)).clip(0, 255).astype(np.uint8)


def _compressed(frame: np.ndarray, strength: float) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="JPEG", quality=round(25 - 22 * strength))
    return np.array(Image.open(file))


def _with_bars(frame: np.ndarray, strength: float) -> np.ndarray:
    made = frame.copy()
    rows = round(len(frame) * (0.06 + 0.14 * strength))
    made[:rows] = made[-rows:] = 0
    return made


def _noisy(frame: np.ndarray, strength: float) -> np.ndarray:
    noise = np.random.default_rng(int(1e6 * strength)).normal(0, 40 * strength, frame.shape)
    return (frame + noise).clip(0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "blur": _blurred,
    "exposure": _badly_exposed,
    "compression": _compressed,
    "bars": _with_bars,
    "noise": _noisy,
}
