"""What training gives to see: the conditioning items of sampling, drawn at random. (Paper section 2.4.)

Some clips have their first frame given, or a whole opening, or cells all over as in an edit in place; these stand in
the video's own tokens, each sample for itself. Pictures on the way and a given ending are tokens in front of the video,
so all clips of a batch have them or none has. Whatever is given has a small random noise level and is out of the loss.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openltx.conditioning import Given, Item, Kept
from openltx.data.latents import Example
from openltx.geometry import LatentShape

IN_PLACE = ("first_frame", "opening", "inpainting")


@dataclass(frozen=True, kw_only=True)
class ConditionMix:
    """How often what is given; the rest is text to video. What the paper leaves open, and our choices.

    first_frame   of the clips
    opening       of the clips: one to all but one of the latent frames, from the first on
    inpainting    of the clips: all but a random box of cells
    keyframes     of the batches: one still of each clip, at its frame
    ending        of the batches: the last frames
    max_t         the noise level of what is given is uniform in [0, this]
    """

    first_frame: float = 0.3
    opening: float = 0.0
    inpainting: float = 0.0
    keyframes: float = 0.0
    ending: float = 0.0
    max_t: float = 0.05


class Front(NamedTuple):
    """What stands in front of the videos of a group: a picture at a frame, or a clip from a frame on."""

    latents: Float[Tensor, "b c e h w"]
    frame: int


def drawn_front(mix: ConditionMix, rng: np.random.Generator) -> str | None:
    """Which kind of tokens in front a batch has."""
    chance = rng.random()
    if chance < mix.keyframes:
        return "keyframes"
    return "ending" if chance < mix.keyframes + mix.ending else None


def front_of(kind: str | None, example: Example, rng: np.random.Generator) -> tuple[int, Tensor] | None:
    """The frame and the latents (c e h w) of what is given in front of one clip; None where it has none."""
    if kind == "keyframes" and example.stills is not None and example.latents.shape[1] > 1:
        chosen = int(rng.integers(len(example.stills)))
        if (frame := example.still_frames[chosen]) > 0:
            return frame, example.stills[chosen]
    if kind == "ending" and example.ending is not None:
        return 8 * (example.latents.shape[1] - example.ending.shape[1]), example.ending
    return None


def in_place_items(
    latents: Float[Tensor, "b c f h w"], shape: LatentShape, mix: ConditionMix, generator: torch.Generator
) -> list[Item]:
    """Items that stand in the videos' own places, each with a strength for each sample (0: not for this one).

    An image, a shape of one frame, is never given anything of itself: nothing would be left to learn.
    """
    shares = [getattr(mix, name) for name in IN_PLACE]
    if shape.frames == 1 or not any(shares):
        return []
    b = len(latents)
    strength = 1 - torch.rand(b, generator=generator) * mix.max_t
    chance = torch.rand(b, generator=generator)
    edges = torch.tensor([0.0, *shares]).cumsum(0)
    first, opening, kept = (strength * ((chance >= low) & (chance < high)) for low, high in itertools.pairwise(edges))
    items: list[Item] = []
    if kept.any():
        items.append(Kept(latents=latents, strength=kept[:, None, None, None] * _outside_boxes(b, shape, generator)))
    if opening.any():
        length = int(torch.randint(1, shape.frames, (), generator=generator))
        items.append(Given(latents=latents[:, :, :length], strength=opening))
    if first.any():
        items.append(Given(latents=latents[:, :, :1], strength=first))
    return items


def front_items(front: Front | None, mix: ConditionMix, generator: torch.Generator) -> list[Item]:
    """The item of what stands in front."""
    if front is None:
        return []
    strength = 1 - torch.rand(len(front.latents), generator=generator) * mix.max_t
    return [Given(latents=front.latents, frame=front.frame, strength=strength)]


def _outside_boxes(b: int, shape: LatentShape, generator: torch.Generator) -> Float[Tensor, "b f h w"]:
    """1 but in a random box of each sample, which goes through half of its cells on average and never through none."""
    inside = torch.ones(b, shape.frames, shape.height, shape.width, dtype=torch.bool)
    for axis, length in enumerate((shape.frames, shape.height, shape.width), start=1):
        size = torch.randint((length + 1) // 2, length + 1, (b,), generator=generator)
        start = (torch.rand(b, generator=generator) * (length - size + 1)).long()
        place = torch.arange(length)
        within = (place >= start[:, None]) & (place < (start + size)[:, None])
        inside &= within.reshape(b, *(length if k == axis else 1 for k in (1, 2, 3)))
    return (~inside).float()
