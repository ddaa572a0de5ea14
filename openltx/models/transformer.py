"""The video transformer: a velocity for every token of the latent video. (Paper section 2.2 and 2.3.)

A PixArt-like diffusion transformer. All tokens attend to all tokens of the video and to the tokens of the caption; the
time t enters through one shared AdaLN network. What is particular to it:

* rotary embedding over the whole width before the heads are split, on real time (seconds) and size (pixels);
* RMSNorm on q and k, likewise over the whole width;
* cross-attention reads the residual stream as it is: no norm, no modulation, no gate, no rotary embedding;
* t may differ from token to token, which is all that image conditioning needs (paper 2.4).

Modules carry the names of the released checkpoints' tensors, so that an official file loads without renaming.
Times are in [0, 1] with t = 1 noise (``flow.path``). Sampling calls ``prepare`` once and ``step`` many times;
``forward`` is one after the other.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openltx.kernels.attention import attention
from openltx.kernels.fused import Rows, gated_add, norm_modulate, norm_rotate, per_token, rotate
from openltx.kernels.linear import Linear
from openltx.models.step_cache import FirstBlockCache
from openltx.models.timestep import TimestepEmbedder

RopeSpacing = Literal["exponential", "inverse"]
RopePositions = Literal["max_normalised", "fractional", "absolute"]
QKNorm = Literal["rms", "none"]
TextAttention = Literal["cross", "joint"]
SkipMode = Literal["attention_values", "attention_skip", "transformer_block", "residual"]

MASKED_LOGIT = -10000.0  # the releases' bias: a caption that is masked out entirely still averages its tokens


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The architecture. Defaults are what every release has in common; the rest is the size.

    caption_channels   width of the text encoder's tokens
    max_positions      the seconds and pixels that map to 1 in the rotary embedding
    timestep_scale     t in [0, 1] is multiplied by it before the sinusoid
    rope_spacing       frequencies rise ("exponential", the paper's choice) or fall ("inverse", the usual one)
    rope_positions     see ``rope_table``
    causal_positions   whether ``geometry.token_positions`` is to use the causal first frame; the model only carries it
    qk_norm            RMSNorm on q and k, or none
    text_attention     "cross", or "joint": caption tokens stand before the video's in one sequence, and there is no
                       cross-attention

    Releases have the defaults of the last two; the others are for experiments (paper 2.2, 2.3 and 4.3).
    """

    num_layers: int
    num_heads: int
    head_dim: int
    caption_channels: int
    in_channels: int = 128
    out_channels: int = 128
    theta: float = 10000.0
    max_positions: tuple[float, float, float] = (20.0, 2048.0, 2048.0)
    timestep_scale: float = 1000.0
    norm_eps: float = 1e-6
    qk_norm_eps: float = 1e-5
    rope_spacing: RopeSpacing = "exponential"
    rope_positions: RopePositions = "max_normalised"
    causal_positions: bool = True
    qk_norm: QKNorm = "rms"
    text_attention: TextAttention = "cross"

    @property
    def width(self) -> int:
        """d, the size of the residual stream."""
        return self.num_heads * self.head_dim


@dataclass(frozen=True)
class Skip:
    """How the network is weakened for spatio-temporal guidance: what is left out in which blocks.

    attention_values    self-attention gives back its values: every token only sees itself
    attention_skip      self-attention gives back its (normed and modulated) input
    transformer_block   the whole block is left out
    residual            nothing is: what the releases' code does under this name, where it guides nowhere
    """

    blocks: tuple[int, ...]
    mode: SkipMode = "attention_values"

    def mode_of(self, block: int) -> SkipMode | None:
        """What is left out in a block; None leaves it whole."""
        return self.mode if block in self.blocks and self.mode != "residual" else None


@dataclass(frozen=True)
class Context:
    """What stays the same over all steps of a request.

    rotation   cos + i sin of the rotary angles, a complex number for each pair of channels; one row if shared
    keys       of the caption tokens, for the cross-attention of each block; ``values`` likewise. With joint attention
               the caption tokens themselves
    text_bias  added to the logits at caption tokens; None when no caption of the batch is padded
    token_bias added to the self-attention's logits at the video's tokens; None when none is padding
    """

    rotation: Complex[Tensor, "#b n half"]
    keys: tuple[Float[Tensor, "b l d"], ...]
    values: tuple[Float[Tensor, "b l d"], ...]
    text_bias: Float[Tensor, "b l"] | None
    token_bias: Float[Tensor, "b n"] | None = None

    @property
    def batch(self) -> int:
        """How many samples it is for."""
        return len(self.keys[0])


class VideoTransformer(nn.Module):
    """Predicts the velocity of latent tokens. Set ``checkpoint_blocks`` to trade time for memory in training.

    ``block_source``, if set, gives the blocks in order, with the weights that begin with one of the names it is called
    with (none: all of them); a block has them while it is the current one. So they need not all lie in memory.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.checkpoint_blocks = False
        self.block_source: Callable[[tuple[str, ...]], Iterator[Block]] | None = None
        self.patchify_proj = nn.Linear(config.in_channels, config.width)
        self.adaln_single = AdaLNSingle(config.width)
        self.caption_projection = CaptionProjection(config.caption_channels, config.width)
        self.transformer_blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.scale_shift_table = nn.Parameter(torch.zeros(2, config.width))
        self.proj_out = nn.Linear(config.width, config.out_channels)

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        t: Float[Tensor, "b"] | Float[Tensor, "b n"],
        positions: Float[Tensor, "b 3 n"],
        text: Float[Tensor, "b l e"],
        text_mask: Bool[Tensor, "b l"],
        *,
        skip: Skip | None = None,
        token_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n out"]:
        """The velocity of ``tokens`` at time ``t`` (one per sample or one per token, in [0, 1]).

        ``token_mask`` is False on tokens that are padding: no other token sees them.
        """
        times, index = (t[:, None], None) if t.ndim == 1 else distinct_times(t)
        return self.step(tokens, times, index, self.prepare(positions, text, text_mask, token_mask), skip)

    def prepare(
        self,
        positions: Float[Tensor, "b 3 n"],
        text: Float[Tensor, "b l e"],
        text_mask: Bool[Tensor, "b l"],
        token_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Context:
        """Everything that does not depend on the tokens or on t.

        ``positions`` are (seconds, pixels, pixels); if they are expanded along the batch (stride 0), one table serves
        all. ``text`` is what the text encoder gives, ``text_mask`` is True on its real tokens. Looks at the mask's
        content, which on an accelerator waits for the device; ``step`` never does.
        """
        shared = positions.stride(0) == 0
        rotation = rope_table(positions[:1] if shared else positions, self.config)
        text = self.caption_projection(text.to(self.dtype))  # b l d
        if self.config.text_attention == "joint":
            keys = values = (text,) * self.config.num_layers
        else:
            blocks = self._blocks("attn2.to_k.", "attn2.to_v.", "attn2.k_norm.")
            keys, values = zip(*(_across(block).keys_values(text) for block in blocks), strict=True)
        bias = _masked(text_mask, keys[0])
        return Context(rotation, keys, values, bias, None if token_mask is None else _masked(token_mask, keys[0]))

    def step(
        self,
        tokens: Float[Tensor, "b n c"],
        t: Float[Tensor, "b k"],
        t_index: Int[Tensor, "b n"] | None,
        context: Context,
        skip: Skip | None = None,
        cache: FirstBlockCache | None = None,
    ) -> Float[Tensor, "b n out"]:
        """The velocity of ``tokens``, given the k times that occur in each sample and which of them each token has.

        Without ``t_index``, k is 1 (a time per sample) or n (a time per token). See ``distinct_times``. ``skip``
        weakens the network for guidance; ``cache`` may leave out all blocks but the first.
        """
        modulation, embedded = self.adaln_single(t.float() * self.config.timestep_scale)  # b k 6 d, b k d
        modulation = modulation.float()
        rows = None if t_index is None else t_index + t.shape[1] * torch.arange(t.shape[0], device=t.device)[:, None]
        h = self.patchify_proj(tokens.to(self.dtype))  # b n d
        rotation, own_bias, front = context.rotation, context.token_bias, 0
        if self.config.text_attention == "joint":
            h, rows, rotation, own_bias = _with_text(h, rows, context)
            front = h.shape[1] - tokens.shape[1]
        first: tuple[Tensor, Tensor] | None = None  # what the first block was given, and what it gave
        for number, block in enumerate(self._blocks()):
            left_out = None if skip is None else skip.mode_of(number)
            if left_out == "transformer_block":
                continue
            key, value = context.keys[number], context.values[number]
            arguments = (h, modulation, rows, rotation, key, value, context.text_bias, left_out, own_bias)
            given = h
            if self.checkpoint_blocks and torch.is_grad_enabled():
                h = cast("Tensor", checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False))
            else:
                h = block(*arguments)
            if number == 0 and cache is not None:
                first = given, h
                if (rest := cache.rest(h - given)) is not None:
                    h, first = h + rest, None
                    break
        if cache is not None and first is not None:
            cache.keep(first[1] - first[0], h - first[1])
        h, rows = h[:, front:], rows if rows is None else rows[:, front:]
        shift, scale = (per_token(x, rows) for x in (self.scale_shift_table + embedded[:, :, None]).unbind(2))
        h = F.layer_norm(h, (self.config.width,), eps=self.config.norm_eps) * (1 + scale) + shift
        return self.proj_out(h).to(tokens.dtype)  # b n out

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; tokens and text are cast to it, the velocity comes back in the tokens' dtype."""
        return self.patchify_proj.weight.dtype

    def _blocks(self, *parts: str) -> Iterable["Block"]:
        if self.block_source is not None:
            return self.block_source(parts)
        return cast("Iterable[Block]", self.transformer_blocks)


class Block(nn.Module):
    """Self-attention, cross-attention to the caption, feed-forward; the first and the last modulated and gated by t."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.eps = config.norm_eps
        self.attn1 = Attention(config)
        self.attn2 = Attention(config) if config.text_attention == "cross" else None
        self.ff = FeedForward(config.width)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, config.width))

    def forward(
        self,
        h: Float[Tensor, "b n d"],
        modulation: Float[Tensor, "b k 6 d"],
        rows: Rows,
        rotation: Complex[Tensor, "#b n half"],
        text_key: Float[Tensor, "b l d"],
        text_value: Float[Tensor, "b l d"],
        text_bias: Float[Tensor, "b l"] | None,
        left_out: SkipMode | None = None,
        own_bias: Float[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + modulation).unbind(2)
        y = self.attn1.among(norm_modulate(h, scale1, shift1, rows, self.eps), rotation, left_out, own_bias)
        h = gated_add(h, y, gate1, rows)
        if self.attn2 is not None:
            h = h + self.attn2.across(h, text_key, text_value, text_bias)
        y = self.ff(norm_modulate(h, scale2, shift2, rows, self.eps))
        return gated_add(h, y, gate2, rows)


class Attention(nn.Module):
    """Multi-head attention with RMSNorm on q and k over the whole width (or none)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        d = config.width
        self.heads = config.num_heads
        self.eps = config.qk_norm_eps
        self.q_norm = NormWeight(d) if config.qk_norm == "rms" else None
        self.k_norm = NormWeight(d) if config.qk_norm == "rms" else None
        self.to_q = Linear(d, d)
        self.to_k = Linear(d, d)
        self.to_v = Linear(d, d)
        self.to_out = nn.Sequential(Linear(d, d))

    def among(
        self,
        h: Float[Tensor, "b n d"],
        rotation: Complex[Tensor, "#b n half"],
        left_out: SkipMode | None = None,
        bias: Float[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Self-attention with the rotary embedding, or what is left of it (see ``Skip``)."""
        if left_out is not None:
            return self.to_out(self.to_v(h) if left_out == "attention_values" else h)
        query, key = self.queries_keys(h, rotation)
        return self.to_out(attention(query, key, self.to_v(h), self.heads, bias))

    def queries_keys(
        self, h: Float[Tensor, "b n d"], rotation: Complex[Tensor, "#b n half"]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """Queries and keys of the self-attention, normed and turned."""
        return self._turned(self.to_q(h), self.q_norm, rotation), self._turned(self.to_k(h), self.k_norm, rotation)

    def keys_values(self, text: Float[Tensor, "b l d"]) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b l d"]]:
        """Keys and values of the caption."""
        return self._turned(self.to_k(text), self.k_norm, None), self.to_v(text)

    def across(
        self,
        h: Float[Tensor, "b n d"],
        key: Float[Tensor, "b l d"],
        value: Float[Tensor, "b l d"],
        bias: Float[Tensor, "b l"] | None,
    ) -> Float[Tensor, "b n d"]:
        """Cross-attention to the caption."""
        query = self._turned(self.to_q(h), self.q_norm, None)
        return self.to_out(attention(query, key, value, self.heads, bias))

    def _turned(self, x: Tensor, norm: "NormWeight | None", rotation: Tensor | None) -> Tensor:
        if norm is not None:
            return norm_rotate(x, norm.weight, rotation, self.eps)
        return x if rotation is None else rotate(x, rotation)


class FeedForward(nn.Module):
    """d -> 4 d -> d with GELU (tanh form). Index 1 of ``net`` is where the releases have a dropout of 0."""

    def __init__(self, d: int):
        super().__init__()
        self.net = nn.Sequential(GeluProjection(d, 4 * d), nn.Identity(), Linear(4 * d, d))

    def forward(self, h: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.net(h)


class GeluProjection(nn.Module):
    def __init__(self, d: int, hidden: int):
        super().__init__()
        self.proj = Linear(d, hidden, activation="gelu")

    def forward(self, h: Float[Tensor, "b n d"]) -> Float[Tensor, "b n hidden"]:
        return self.proj(h)


class NormWeight(nn.Module):
    """The weight of an RMSNorm, under the tensor name that it has in the releases."""

    def __init__(self, d: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))


class AdaLNSingle(nn.Module):
    """One network for all blocks: t -> six modulation vectors, and the embedding of t for the output layer."""

    def __init__(self, d: int):
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": TimestepEmbedder(d)})
        self.linear = nn.Linear(d, 6 * d)

    def forward(self, t: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "b k 6 d"], Float[Tensor, "b k d"]]:
        embedded = self.emb["timestep_embedder"](t)
        return rearrange(self.linear(F.silu(embedded)), "b k (six d) -> b k six d", six=6), embedded


class CaptionProjection(nn.Module):
    def __init__(self, caption_channels: int, d: int):
        super().__init__()
        self.linear_1 = nn.Linear(caption_channels, d)
        self.linear_2 = nn.Linear(d, d)

    def forward(self, text: Float[Tensor, "b l e"]) -> Float[Tensor, "b l d"]:
        return self.linear_2(F.gelu(self.linear_1(text), approximate="tanh"))


def _across(block: Block) -> Attention:
    assert block.attn2 is not None, "a transformer with joint attention has no cross-attention"
    return block.attn2


def _masked(mask: Bool[Tensor, "b l"], like: Tensor) -> Float[Tensor, "b l"] | None:
    """What masked tokens have added to their logits; None where no token is masked."""
    return None if bool(mask.all()) else (~mask).to(like.dtype) * MASKED_LOGIT


def _with_text(h: Tensor, rows: Tensor | None, context: Context) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """One sequence of caption and video: tokens, times' rows, rotation (none of the caption) and self-attention bias.

    Caption tokens have the largest time of their sample.
    """
    text = context.keys[0]
    b, length, n = len(text), text.shape[1], h.shape[1]
    if rows is not None:
        rows = torch.cat([rows.amax(1, keepdim=True).expand(-1, length), rows], 1)
    still = torch.ones_like(context.rotation[:, :1]).expand(-1, length, -1)
    bias = None
    if context.text_bias is not None or context.token_bias is not None:
        parts = [context.text_bias, context.token_bias]
        bias = torch.cat([text.new_zeros(b, k) if x is None else x for x, k in zip(parts, (length, n), strict=True)], 1)
    return torch.cat([text.to(h.dtype), h], 1), rows, torch.cat([still, context.rotation], 1), bias


def rope_table(positions: Float[Tensor, "b 3 n"], config: TransformerConfig) -> Complex[Tensor, "b n half"]:
    """cos + i sin of the rotary angles, in float32: for each frequency the three axes side by side.

    With K = width // 6 frequencies and p the position of a token on an axis (paper 2.2 and figure 17):

        exponential   angle = pi/2 * theta^(k/(K-1)) * (2 p - 1)       rising from pi/2 to theta pi/2
        inverse       angle = pi/2 * theta^(-6k/width) * p             falling from pi/2

    and ``rope_positions`` says what p is:

        max_normalised   the coordinate over ``max_positions``: p = 1 is 20 seconds or 2048 pixels in every clip
        fractional       the coordinate over the largest one in this clip: every clip spans 0 to 1
        absolute         the coordinate itself, in seconds and pixels. Meant for "inverse", where a pixel then turns
                         the fastest pair by pi/2; under "exponential" it aliases.

    The channels that 6 does not divide stay unrotated; they come first.
    """
    K = config.width // 6
    positions = positions.float()
    match config.rope_positions:
        case "max_normalised":
            p = positions / positions.new_tensor(config.max_positions)[:, None]
        case "fractional":
            p = positions / positions.amax(-1, keepdim=True).clamp(min=torch.finfo(positions.dtype).tiny)
        case "absolute":
            p = positions
    match config.rope_spacing:
        case "exponential":
            frequency = config.theta ** torch.linspace(0, 1, K, device=positions.device) * (math.pi / 2)
            p = 2 * p - 1
        case "inverse":
            ramp = torch.arange(K, dtype=torch.float32, device=positions.device) * (6 / config.width)
            frequency = config.theta**-ramp * (math.pi / 2)
    angle = rearrange(frequency[:, None] * rearrange(p, "b axes n -> b n 1 axes"), "b n k axes -> b n (k axes)")
    angle = F.pad(angle, (config.width // 2 - 3 * K, 0))
    return torch.complex(angle.cos(), angle.sin())


def distinct_times(t: Float[Tensor, "b n"]) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b n"] | None]:
    """The different values in each row and which of them each token has (None where a row has only one).

    The number k is that of the row with most; shorter rows are filled up with zeros that no index points to. It is read
    back from the device, so call this once before a loop: the times of a sampler at t, min(t, 1 - strength), have the
    index of ``distinct_times(1 - strength)`` at every t.
    """
    ordered, order = t.sort(dim=1)
    rank = F.pad((ordered.diff(dim=1) != 0).long().cumsum(1), (1, 0))
    k = int(rank[:, -1].max()) + 1
    values = t.new_zeros(t.shape[0], k).scatter(1, rank, ordered)
    return values, None if k == 1 else torch.zeros_like(rank).scatter(1, order, rank)


@torch.no_grad()
def init_weights(model: VideoTransformer, generator: torch.Generator | None = None) -> None:
    """Start weights for training from scratch: every block is the identity and the velocity is zero (DiT, PixArt).

    Xavier-uniform linear layers without bias; N(0, 0.02) in the embedding of t and of the caption; zeros where a branch
    meets the residual stream (AdaLN output and tables, hence the gates; the cross-attention's output) and in the last
    layer.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("_norm.weight"):
            nn.init.ones_(parameter)
        elif parameter.ndim == 1 or name.endswith(_ZERO_AT_START):
            nn.init.zeros_(parameter)
        elif name.startswith(("adaln_single.emb.", "caption_projection.")):
            nn.init.normal_(parameter, std=0.02, generator=generator)
        else:
            nn.init.xavier_uniform_(parameter, generator=generator)


_ZERO_AT_START = ("scale_shift_table", "adaln_single.linear.weight", "attn2.to_out.0.weight", "proj_out.weight")
