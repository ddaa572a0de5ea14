"""How well a transformer predicts the velocity of latents that it was not trained on.

The noise and the times are the same for every transformer, so numbers of two of them can be compared wherever the
latents are of the same VAE. Times are a fixed grid: the mean over them weighs all noise levels alike, whatever the
distribution of a training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.conditioning import Given, training_state
from openltx.data.latents import Example, padded
from openltx.flow.path import velocity
from openltx.geometry import LatentShape, patchify
from openltx.kernels.fused import norm_modulate
from openltx.models.transformer import Block, VideoTransformer
from openltx.noise import derived_generator

TIMES = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.97)


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """Mean squared error of the velocity: over all ``TIMES``, at each, and of each size (f, h, w)."""

    mean: float
    by_time: tuple[float, ...]
    by_shape: dict[str, float]


@torch.inference_mode()
def held_out_loss(
    transformer: VideoTransformer, examples: Sequence[Example], *, first_frame: bool = False, seed: int = 0
) -> HeldOutLoss:
    """The loss on all examples, from text alone or with the first frame given (clean, out of the loss)."""
    errors: list[list[float]] = []
    shapes: dict[str, list[float]] = {}
    for index, example in enumerate(examples):
        generator = derived_generator(seed, "held out", index)
        if first_frame and example.latents.shape[1] == 1:
            continue
        row = [_error(transformer, example, t, generator, first_frame) for t in TIMES]
        errors.append(row)
        shapes.setdefault("x".join(map(str, example.latents.shape[1:])), []).append(_mean(row))
    return HeldOutLoss(
        mean=_mean([_mean(row) for row in errors]),
        by_time=tuple(_mean(column) for column in zip(*errors, strict=True)),
        by_shape={name: _mean(values) for name, values in sorted(shapes.items())},
    )


@torch.inference_mode()
def attention_entropy(transformer: VideoTransformer, example: Example, t: float = 0.8) -> float:
    """Entropy of the self-attention, as a share of that of even attention; mean over blocks, heads and tokens.

    Near 0 every token looks at a single other one; the logits have run away. Not for joint attention.
    """
    inputs: list[tuple[Any, ...]] = []
    blocks = [block for block in transformer.transformer_blocks if isinstance(block, Block)]
    hooks = [block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments)) for block in blocks]
    try:
        _error(transformer, example, t, derived_generator(0, "entropy"), first_frame=False)
    finally:
        for hook in hooks:
            hook.remove()
    return _mean([_entropy(block, arguments) for block, arguments in zip(blocks, inputs, strict=True)])


def _error(
    transformer: VideoTransformer, example: Example, t: float, generator: torch.Generator, first_frame: bool
) -> float:
    latents = example.latents[None].float()
    f, h, w = latents.shape[2:]
    shape, clean = LatentShape(frames=f, height=h, width=w), patchify(latents)
    noise = torch.randn(clean.shape, generator=generator)
    items = [Given(latents=latents[:, :, :1])] if first_frame else []
    causal = transformer.config.causal_positions
    state, times, counted = training_state(clean, noise, torch.tensor([t]), shape, example.fps, items, causal)
    text, mask = padded(example.captions[:1])
    predicted = transformer(state.tokens, times, state.positions, text, mask)
    error = (predicted.float() - velocity(clean, noise)).square().mean(-1)
    return float(error[counted].mean())


def _entropy(block: Block, arguments: tuple[Any, ...]) -> float:
    h, modulation, rows, rotation = arguments[:4]
    shift, scale = (block.scale_shift_table + modulation).unbind(2)[:2]
    query, key = block.attn1.queries_keys(norm_modulate(h, scale, shift, rows, block.eps), rotation)
    q, k = (_heads(x.float(), block.attn1.heads) for x in (query, key))
    shares = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum(-1)
    return float(entropy.mean()) / math.log(k.shape[2])


def _heads(x: Tensor, heads: int) -> Float[Tensor, "b heads n c"]:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
