"""Conditions as tokens: what is given is put among the tokens and told to be cleaner than the rest. (Paper 2.4.)

Sampling and training build the same ``TokenState`` from the same item, so the model never meets at inference what it
has not met in training. A condition of strength s is noised to the level 1 - s and has the effective time
min(t, 1 - s); strength 1 is the clean image, held from start to end.

Some items take the place of tokens of the video, others are extra tokens in front of them (which the sampler drops in
the end) at positions of their own. Where the releases differ from the paper's first-frame conditioning, the rules are
those of the official pipeline from 0.9.5 on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openltx.errors import RequestError
from openltx.flow.path import TokenState, interpolate
from openltx.geometry import LatentShape, patchify, token_positions

Prefix = Literal["tokens", "soft", "drop"]
Draw = Callable[[Sequence[int]], Tensor]
"""Fresh standard normal noise of a shape."""

PREFIX_LATENTS = 2  # of a clip inside the video: the first stands for one frame only, the second leans on it
SOFT_PREFIX_STRENGTH = 0.15


@dataclass(frozen=True, kw_only=True)
class Given:
    """Normalised latents of an image (f = 1) or a clip that the video shows from pixel frame ``frame`` on.

    From frame 0 on they stand in the place of the video's own tokens. Elsewhere an image is extra tokens at the time of
    its frame, and of a clip (whose frame is a multiple of 8) the latents from the third on stand in place, while
    ``prefix`` says what becomes of the first two, which were encoded as the start of a video: extra "tokens", "soft"
    (the second in place at a small strength) or "drop". ``strength``: 1 keeps them exactly, 0 not at all; one number,
    or one for each sample.
    """

    latents: Float[Tensor, "b c f h w"]
    frame: int = 0
    strength: float | Float[Tensor, "b"] = 1.0
    prefix: Prefix = "tokens"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A clip to look at (depth, poses, ...) as extra tokens at the video's own positions, as IC-LoRAs want it."""

    latents: Float[Tensor, "b c f h w"]
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A whole video of which each latent cell is kept with its own strength: a mask for edits in place."""

    latents: Float[Tensor, "b c f h w"]
    strength: Float[Tensor, "b f h w"]


Item = Given | Reference | Kept


def initial_state(
    start: Float[Tensor, "b n c"],
    shape: LatentShape,
    fps: float,
    items: Sequence[Item],
    causal: bool = True,
    draw: Draw | None = None,
) -> TokenState:
    """The state to sample from: the tokens ``start``, with the items written in. ``RequestError`` if one does not fit.

    ``start`` is noise, or a video noised to the time at which sampling begins, as tokens of ``shape`` at ``fps`` frames
    a second. An item with one sample serves the whole batch. ``causal`` is the model's ``causal_positions``; ``draw``
    gives the noise of extra tokens whose strength is below 1.
    """
    clean = torch.zeros_like(start)
    strength = start.new_zeros(start.shape[:2])
    extras: list[_Extra] = []
    cells = shape.height * shape.width
    for item in items:
        _require_fitting(item, start, shape)
        for part in _parts(item, shape, fps, causal):
            if isinstance(part, _Extra):
                extras.append(part)
                continue
            place = slice(part.frame * cells, part.frame * cells + part.tokens.shape[1])
            level = part.strength.to(strength)
            held = level > 0 if part.spares else torch.ones_like(level, dtype=torch.bool)
            clean[:, place] = torch.where(held[..., None], part.tokens.to(clean), clean[:, place])
            strength[:, place] = torch.where(held, level, strength[:, place])
    tokens = interpolate(clean, start, 1 - strength)
    positions = token_positions(shape, fps, causal)
    fronts = [_noised(extra, start, draw) for extra in extras]
    tokens, clean, strength = (torch.cat(parts, 1) for parts in zip(*fronts, (tokens, clean, strength), strict=True))
    positions = torch.cat([*(extra.positions for extra in extras), positions], 1)
    # one clip's positions are seen by the whole batch without a copy: the model then makes one rotary table
    positions = positions.to(start.device).expand(len(start), -1, -1)
    return TokenState(tokens, clean, strength, positions, shape.num_tokens)


def training_state(
    clean: Float[Tensor, "b n c"],
    noise: Float[Tensor, "b n c"],
    t: Float[Tensor, "b"],
    shape: LatentShape,
    fps: float,
    items: Sequence[Item] = (),
    causal: bool = True,
    draw: Draw | None = None,
) -> tuple[TokenState, Float[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """A training example: the noised state, every token's time, and which tokens count in the loss.

    The items are written in as for sampling (``initial_state``); whatever is conditioned has the time min(t, 1 - s),
    matching noise, and is out of the loss. ``clean`` are the tokens of videos of ``shape``, of which the state's
    ``clean`` holds all; ``draw`` gives the noise of tokens in front of the video.
    """
    given = initial_state(noise, shape, fps, items, causal, draw)
    front = given.tokens.shape[1] - shape.num_tokens
    in_front = given.clean[:, :front]
    whole = torch.cat([in_front, torch.where(given.strength[:, front:, None] > 0, given.clean[:, front:], clean)], 1)
    if front:
        assert draw is not None, "tokens in front of the video need noise: give draw"
        noise = torch.cat([draw(in_front.shape).to(noise), noise], 1)
    times = given.effective_t(t)
    state = replace(given, tokens=interpolate(whole, noise, times), clean=whole)
    counted = given.strength == 0
    counted[:, :front] = False
    return state, times, counted


@dataclass(frozen=True)
class _InPlace:
    """Tokens that replace those of the video from latent frame ``frame`` on; strength (b n) or (b 1).

    ``spares``: samples with a strength of 0 are left as they are.
    """

    tokens: Tensor
    frame: int
    strength: Tensor
    spares: bool = False


@dataclass(frozen=True)
class _Extra:
    """Tokens in front of those of the video."""

    tokens: Tensor
    positions: Float[Tensor, "3 n"]
    strength: Tensor


def _parts(item: Item, shape: LatentShape, fps: float, causal: bool) -> list[_InPlace | _Extra]:
    match item:
        case Kept():
            return [_InPlace(patchify(item.latents), 0, item.strength.flatten(1))]
        case Reference():
            return [_extra(item.latents, shape, fps, causal, 0, item.strength)]
        case Given(frame=0):
            return [_InPlace(patchify(item.latents), 0, _column(item.strength), isinstance(item.strength, Tensor))]
        case Given() if item.latents.shape[2] == 1:
            return [_extra(item.latents, shape, fps, causal, item.frame, item.strength)]
        case Given():
            return _clip_inside(item, shape, fps, causal)


def _clip_inside(item: Given, shape: LatentShape, fps: float, causal: bool) -> list[_InPlace | _Extra]:
    """A clip that starts at a later frame: its prefix, and the rest in place."""
    first, parts = item.frame // 8, list[_InPlace | _Extra]()
    prefix, rest = item.latents[:, :, :PREFIX_LATENTS], item.latents[:, :, PREFIX_LATENTS:]
    if item.prefix == "tokens":
        parts.append(_extra(prefix, shape, fps, causal, item.frame, item.strength))
    elif item.prefix == "soft":
        soft = _column(item.strength).clamp(max=SOFT_PREFIX_STRENGTH)
        parts.append(_InPlace(patchify(prefix[:, :, 1:]), first + 1, soft))
    if rest.shape[2]:
        parts.append(_InPlace(patchify(rest), first + PREFIX_LATENTS, _column(item.strength)))
    return parts


def _extra(
    latents: Tensor, shape: LatentShape, fps: float, causal: bool, frame: int, strength: float | Tensor
) -> _Extra:
    """Tokens at the positions of a video of their own that begins at pixel frame ``frame``."""
    own = LatentShape(frames=latents.shape[2], height=shape.height, width=shape.width)
    return _Extra(patchify(latents), token_positions(own, fps, causal, first_frame=frame), _column(strength))


def _column(strength: float | Tensor) -> Float[Tensor, "b 1"]:
    """One strength for each sample, or for all."""
    return torch.as_tensor(strength, dtype=torch.float32).reshape(-1, 1)


def _noised(extra: _Extra, start: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor, Tensor]:
    """Extra tokens as they stand in the state: mixed with noise, clean, and their strengths."""
    b, n = len(start), extra.tokens.shape[1]
    given = extra.tokens.to(start).expand(b, -1, -1)
    strength = extra.strength.to(start).expand(b, n)
    assert draw is not None or bool((strength == 1).all()), "a weak condition in front needs noise: give draw"
    noise = torch.zeros_like(given) if draw is None else draw(given.shape).to(given)
    return interpolate(given, noise, 1 - strength), given, strength


def _require_fitting(item: Item, start: Tensor, shape: LatentShape) -> None:
    """Raise RequestError for latents of another size, a place outside the video, or an impossible strength."""
    b, c, f, h, w = item.latents.shape
    if (h, w) != (shape.height, shape.width) or c != start.shape[2] or b not in (1, len(start)):
        raise RequestError(
            f"A condition has latents of {b} x {c} x {h} x {w}, the video {len(start)} x {start.shape[2]} x "
            f"{shape.height} x {shape.width} (batch, channels, height, width). Resize the image to the video's size "
            "before it is encoded, and give one image or one for each video."
        )
    strengths = item.strength if isinstance(item.strength, Tensor) else torch.tensor(item.strength)
    if not bool(((strengths >= 0) & (strengths <= 1)).all()):
        raise RequestError(f"A conditioning strength of {item.strength} is not possible: choose one from 0 to 1.")
    if isinstance(item, Kept):
        if f != shape.frames or item.strength.shape[1:] != (f, h, w):
            raise RequestError(
                f"An edit in place needs latents and mask of the whole video, {shape.frames} x {h} x {w}."
            )
    elif isinstance(item, Reference):
        if f > shape.frames:
            raise RequestError(
                f"A reference of {8 * f - 7} frames is longer than the video of {8 * shape.frames - 7}: it may have at "
                "most as many. Cut it, or ask for more frames."
            )
    elif isinstance(item, Given):
        require_place(item.frame, 8 * f - 7, 8 * shape.frames - 7)


def require_place(frame: int, length: int, total: int) -> None:
    """Raise ``RequestError`` unless ``length`` frames from ``frame`` on fit into ``total``, and start on the grid."""
    if frame < 0 or frame + length > total:
        raise RequestError(
            f"A condition of {length} frames from frame {frame} on does not fit into a video of {total} frames: it may "
            f"start at 0 to {total - length}."
            if length <= total
            else f"A condition of {length} frames is longer than the video of {total} frames. Cut it, or ask for more."
        )
    if length > 1 and frame % 8:
        below = frame // 8 * 8
        raise RequestError(
            f"A clip can only start at a multiple of 8 frames, not at frame {frame}. The nearest are {below} and "
            f"{below + 8}."
        )
