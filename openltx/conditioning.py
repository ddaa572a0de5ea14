"""Conditions as tokens: what is given is put among the tokens and told to be cleaner than the rest. (Paper 2.4.)

Sampling and training build the same ``TokenState`` from the same item, so the model never meets at inference what it
has not met in training. A condition of strength s is noised to the level 1 - s and has the effective time
min(t, 1 - s); strength 1 is the clean image, held from start to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openltx.errors import RequestError
from openltx.flow.path import TokenState, interpolate
from openltx.geometry import LatentShape, patchify, token_positions


@dataclass(frozen=True, kw_only=True)
class FirstImage:
    """The first frame is given: its normalised latents, and how much it is to be kept (1: exactly, 0: not at all)."""

    latents: Float[Tensor, "b c 1 h w"]
    strength: float = 1.0


def initial_state(
    noise: Float[Tensor, "b n c"],
    shape: LatentShape,
    fps: float,
    items: Sequence[FirstImage],
    causal: bool = True,
) -> TokenState:
    """The state at t = 1: noise, with the items' tokens written in. ``RequestError`` if an item does not fit.

    ``noise`` are the tokens of a video of ``shape`` at ``fps`` frames a second; an item with one sample serves all of
    them. ``causal`` is the model's ``causal_positions``.
    """
    clean = torch.zeros_like(noise)
    strength = noise.new_zeros(noise.shape[:2])
    for item in items:
        given = _fitting_tokens(item, noise, shape)
        clean[:, : given.shape[1]] = given
        strength[:, : given.shape[1]] = item.strength
    tokens = interpolate(clean, noise, 1 - strength)
    return TokenState(tokens, clean, strength, _positions(shape, fps, causal, noise), shape.num_tokens)


def training_state(
    clean: Float[Tensor, "b n c"],
    noise: Float[Tensor, "b n c"],
    t: Float[Tensor, "b"],
    shape: LatentShape,
    fps: float,
    first_frame_strength: Float[Tensor, "b"],
    causal: bool = True,
) -> tuple[TokenState, Float[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """A training example: the noised state, every token's time, and which tokens count in the loss.

    Samples whose ``first_frame_strength`` is above 0 have a ``FirstImage`` of that strength; its tokens are out of
    the loss. A shape of one frame, an image, is never given its own first frame: nothing would be left to learn.
    ``clean`` are the tokens of videos of ``shape``.
    """
    given = shape.height * shape.width if shape.frames > 1 else 0
    in_first_frame = torch.arange(shape.num_tokens, device=clean.device) < given
    strength = first_frame_strength[:, None].to(clean.dtype) * in_first_frame
    state = TokenState(clean, clean, strength, _positions(shape, fps, causal, clean), shape.num_tokens)
    times = state.effective_t(t)
    noised = TokenState(interpolate(clean, noise, times), clean, strength, state.positions, state.num_targets)
    return noised, times, strength == 0


def _positions(shape: LatentShape, fps: float, causal: bool, like: Tensor) -> Tensor:
    """One clip's positions seen by the whole batch without a copy (the model then makes one rotary table)."""
    return token_positions(shape, fps, causal).to(like.device).expand(like.shape[0], -1, -1)


def _fitting_tokens(item: FirstImage, noise: Tensor, shape: LatentShape) -> Tensor:
    b, c, _, h, w = item.latents.shape
    if (h, w) != (shape.height, shape.width) or c != noise.shape[2] or b not in (1, noise.shape[0]):
        raise RequestError(
            f"The first image has latents of {b} x {c} x {h} x {w}, the video {noise.shape[0]} x {noise.shape[2]} x "
            f"{shape.height} x {shape.width} (batch, channels, height, width). Resize the image to the video's size "
            "before it is encoded, and give one image or one for each video."
        )
    if not 0 <= item.strength <= 1:
        raise RequestError(f"A conditioning strength of {item.strength} is not possible: choose one from 0 to 1.")
    return patchify(item.latents).to(noise)
