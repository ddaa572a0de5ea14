"""One video's tokens spread over several ranks (Ulysses: Jacobs et al. 2023, arXiv 2309.14509).

Every rank of a group has a run of neighbouring tokens. All layers work token by token but for self-attention, before
which the ranks exchange: from some tokens with all heads to all tokens with some heads, and back after it.

    tokens  n_i x d   --all-to-all-->   n x d / ranks   --attention-->   n x d / ranks   --all-to-all-->   n_i x d

So a rank holds the activations of its own tokens only, and d / ranks channels of the others' at a time. Runs of tokens
need not be equally long; the number of heads must be divisible by that of the ranks.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from openltx.errors import RunError
from openltx.kernels.attention import attention
from openltx.models.transformer import Block, VideoTransformer


def spread_tokens(transformer: VideoTransformer, group: dist.ProcessGroup) -> None:
    """From now on a training pass of ``transformer`` is one of all ranks in ``group``, which must be given the same.

    Each computes its own tokens and gets the velocity of all. In the backward pass a rank's gradients are those by way
    of its own tokens times the number of ranks: their *mean* over the group is the gradient, as if each rank had had a
    batch of its own. Where no gradients are wanted, a rank computes for itself: it may sample alone. Raises RunError
    for an architecture whose layers cannot be spread.
    """
    config, size = transformer.config, dist.get_world_size(group)
    if config.num_heads % size:
        raise RunError(
            f"{size} ranks cannot share {config.num_heads} attention heads: choose a sequence that divides them."
        )
    if config.text_attention != "cross":
        raise RunError("Joint attention puts the text among the tokens; only with cross-attention can they be spread.")
    if config.rope_positions == "fractional":
        raise RunError("Fractional positions depend on all tokens of a clip; they cannot be spread over ranks.")
    tokens = _Tokens(group)
    for block in cast("Sequence[Block]", transformer.transformer_blocks):
        block.attn1.attend = tokens.attend
    transformer.register_forward_pre_hook(tokens.keep_mine, with_kwargs=True)
    transformer.register_forward_hook(tokens.join)


class _Tokens:
    """Which tokens of the present forward pass each rank has, and how they meet."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self.counts: list[int] = []

    def keep_mine(
        self, _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """A forward pre-hook: tokens, their times and positions, cut down to this rank's."""
        if not torch.is_grad_enabled():
            return args, kwargs
        tokens, t, positions, *text = args
        n = tokens.shape[1]
        if n < self.ranks:
            raise RunError(f"{n} tokens cannot be spread over {self.ranks} ranks.")
        self.counts = [n // self.ranks + (i < n % self.ranks) for i in range(self.ranks)]
        mine = slice(*list(itertools.accumulate(self.counts, initial=0))[self.rank : self.rank + 2])
        return (tokens[:, mine], t[:, mine] if t.ndim == 2 else t, positions[:, :, mine], *text), kwargs

    def join(self, _module: nn.Module, _args: tuple[Tensor, ...], velocity: Tensor) -> Tensor:
        """A forward hook: the velocity of all tokens."""
        if not torch.is_grad_enabled():
            return velocity
        return cast("Tensor", _Join.apply(velocity, self.counts, self.rank, self.group))

    def attend(
        self,
        query: Float[Tensor, "b n d"],
        key: Float[Tensor, "b n d"],
        value: Float[Tensor, "b n d"],
        heads: int,
        bias: Float[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Self-attention among the tokens of all ranks, for this rank's tokens."""
        if not torch.is_grad_enabled():
            return attention(query, key, value, heads, bias)
        if bias is not None:
            raise RunError("Padded tokens cannot be spread over ranks: drop tokens instead (sequence 1 pads).")
        together = cast("Tensor", _Exchange.apply(torch.cat((query, key, value)), self, True))
        all_query, all_key, all_value = together.chunk(3)
        out = attention(all_query, all_key, all_value, heads // self.ranks)
        return cast("Tensor", _Exchange.apply(out, self, False))

    def exchange(self, x: Tensor, to_heads: bool) -> Tensor:
        """My tokens with all channels -> all tokens with my channels (``to_heads``), or back."""
        pieces = x.chunk(self.ranks, 2) if to_heads else x.split(self.counts, 1)
        narrow = x.shape[2] // self.ranks if to_heads else x.shape[2]
        shapes = [(x.shape[0], n if to_heads else self.counts[self.rank], narrow) for n in self.counts]
        sizes = [math.prod(shape) for shape in shapes]
        received = x.new_empty(sum(sizes))
        sent = torch.cat([piece.flatten() for piece in pieces])
        dist.all_to_all_single(received, sent, sizes, [piece.numel() for piece in pieces], group=self.group)
        parts = [part.view(shape) for part, shape in zip(received.split(sizes), shapes, strict=True)]
        return torch.cat(parts, 1 if to_heads else 2)


class _Exchange(torch.autograd.Function):
    """A permutation of numbers among ranks; its gradient goes the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: _Tokens, to_heads: bool) -> Tensor:
        ctx.settings = tokens, to_heads
        return tokens.exchange(x, to_heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, to_heads = ctx.settings
        return tokens.exchange(gradient, not to_heads), None, None


class _Join(torch.autograd.Function):
    """Everybody's tokens in a row; backwards, this rank's share, times the number of ranks (see ``spread_tokens``)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int], rank: int, group: dist.ProcessGroup) -> Tensor:
        ctx.settings = counts, rank
        rows = x.new_zeros(x.shape[0], sum(counts), x.shape[2])
        rows.split(counts, 1)[rank].copy_(x)
        dist.all_reduce(rows, group=group)  # the others' places are zero; runs of tokens differ in length
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        counts, rank = ctx.settings
        return len(counts) * gradient.split(counts, 1)[rank], None, None, None
