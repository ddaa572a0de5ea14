"""The guided velocity of a request: which passes of the transformer a step needs, and what is made of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openltx.flow.guidance import GuidanceCurve, guide
from openltx.flow.path import TokenState
from openltx.models.step_cache import FirstBlockCache
from openltx.models.transformer import Context, Skip, SkipMode, VideoTransformer, distinct_times


@dataclass(frozen=True)
class Prompts:
    """The contexts of prompt and negative prompt (None where no step needs it); ``both``: the two in one batch."""

    positive: Context
    negative: Context | None = None
    both: Context | None = None


def in_one_batch(both: Context) -> Prompts:
    """Prompt and negative prompt that were prepared together."""
    return Prompts(_sample(both, 0), _sample(both, 1), both)


def guided_velocity(
    transformer: VideoTransformer,
    prompts: Prompts,
    state: TokenState,
    curve: GuidanceCurve,
    skip_mode: SkipMode,
    cache_threshold: float = 0.0,
) -> Callable[[TokenState, float], Tensor]:
    """The velocity that a solver asks for, at one sample. ``state`` says which tokens are conditioned how much.

    Reads the conditioning back from the device once, here: nothing in the loop waits for it. With a threshold above 0
    each kind of pass has a ``FirstBlockCache``.
    """
    levels, index = distinct_times(1 - state.strength)
    caches: dict[tuple[int, Skip | None], FirstBlockCache] = {}

    @torch.inference_mode()
    def velocity(state: TokenState, t: float) -> Tensor:
        guidance, times = curve.at(t), levels.clamp(max=t)  # every token's own time, min(t, 1 - strength)

        def run(context: Context, skip: Skip | None = None) -> Tensor:
            b = context.batch
            own = None if index is None else index.expand(b, -1)
            cache = None
            if cache_threshold:
                cache = caches.setdefault((id(context), skip), FirstBlockCache(cache_threshold))
            return transformer.step(state.tokens.expand(b, -1, -1), times.expand(b, -1), own, context, skip, cache)

        negative = weak = None
        if guidance.needs_negative and prompts.both is not None:
            positive, negative = run(prompts.both).split(1)
        else:
            positive = run(prompts.positive)
            if guidance.needs_negative:
                assert prompts.negative is not None
                negative = run(prompts.negative)
        if guidance.needs_weak:
            weak = run(prompts.positive, Skip(guidance.skip_blocks, skip_mode))
        return guide(positive, negative, weak, guidance)

    return velocity


def _sample(context: Context, index: int) -> Context:
    """One sample of a batch, without copies."""

    def one(x: Tensor) -> Tensor:
        return x[index : index + 1]

    return replace(
        context,
        rotation=context.rotation if len(context.rotation) == 1 else one(context.rotation),
        keys=tuple(map(one, context.keys)),
        values=tuple(map(one, context.values)),
        text_bias=None if context.text_bias is None else one(context.text_bias),
    )
