"""The guided velocity of a request: which passes of the transformer a step needs, and what is made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.flow.guidance import GuidanceCurve, guide
from openltx.flow.path import TokenState
from openltx.models.step_cache import FirstBlockCache
from openltx.models.text import TextContext, join
from openltx.models.transformer import Context, Skip, SkipMode, VideoTransformer, distinct_times
from openltx.pipelines.plan import ONE_BATCH_TOKENS


@dataclass(frozen=True)
class Prompts:
    """The contexts of prompt and negative prompt (None where no step needs it); ``both``: the two in one batch."""

    positive: Context
    negative: Context | None = None
    both: Context | None = None


def prompts_of(
    transformer: VideoTransformer, texts: Sequence[Sequence[TextContext]], positions: Float[Tensor, "1 3 n"]
) -> Prompts:
    """The prompts of one video or several and, if they are there, their negative prompts, ready for the transformer.

    ``texts`` has one or two contexts for each video; all videos have the tokens' ``positions``.
    """
    kinds = [join(kind) for kind in zip(*texts, strict=True)]

    def context(text: TextContext) -> Context:
        embeddings, mask = text.embeddings.to(positions.device, transformer.dtype), text.mask.to(positions.device)
        return transformer.prepare(positions.expand(len(mask), -1, -1), embeddings, mask)

    if len(kinds) == 2 and len(texts) * positions.shape[2] <= ONE_BATCH_TOKENS:
        both = context(join(kinds))
        return Prompts(_half(both, 0), _half(both, 1), both)
    return Prompts(*map(context, kinds))


def guided_velocity(
    transformer: VideoTransformer,
    prompts: Prompts,
    state: TokenState,
    curve: GuidanceCurve,
    skip_mode: SkipMode,
    cache_threshold: float = 0.0,
) -> Callable[[TokenState, float], Tensor]:
    """The velocity that a solver asks for. ``state`` says which tokens are conditioned how much.

    Reads the conditioning back from the device once, here: nothing in the loop waits for it. With a threshold above 0
    each kind of pass has a ``FirstBlockCache``.
    """
    levels, index = distinct_times(1 - state.strength)
    caches: dict[tuple[int, Skip | None], FirstBlockCache] = {}

    @torch.inference_mode()
    def velocity(state: TokenState, t: float) -> Tensor:
        guidance, times = curve.at(t), levels.clamp(max=t)  # every token's own time, min(t, 1 - strength)

        def run(context: Context, skip: Skip | None = None) -> Tensor:
            copies = context.batch // len(state.tokens)  # two: prompts and negative prompts
            own = None if index is None else index.repeat(copies, 1)
            cache = None
            if cache_threshold:
                cache = caches.setdefault((id(context), skip), FirstBlockCache(cache_threshold))
            tokens = state.tokens.repeat(copies, 1, 1)
            return transformer.step(tokens, times.repeat(copies, 1), own, context, skip, cache)

        negative = weak = None
        if guidance.needs_negative and prompts.both is not None:
            positive, negative = run(prompts.both).chunk(2)
        else:
            positive = run(prompts.positive)
            if guidance.needs_negative:
                assert prompts.negative is not None
                negative = run(prompts.negative)
        if guidance.needs_weak:
            weak = run(prompts.positive, Skip(guidance.skip_blocks, skip_mode))
        return guide(positive, negative, weak, guidance)

    return velocity


def _half(context: Context, which: Literal[0, 1]) -> Context:
    """The first or the second half of a batch, without copies."""

    def half(x: Tensor) -> Tensor:
        return x.chunk(2)[which]

    return replace(
        context,
        rotation=context.rotation if len(context.rotation) == 1 else half(context.rotation),
        keys=tuple(map(half, context.keys)),
        values=tuple(map(half, context.values)),
        text_bias=None if context.text_bias is None else half(context.text_bias),
    )
