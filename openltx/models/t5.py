"""T5 v1.1's encoder: the token states that every released transformer was trained on. (Raffel et al. 2020; paper 2.3.)

    x = x + O softmax(q k^T + bias) v      q, k, v = Q y, K y, V y    y = rms_norm(x)
    x = x + D (gelu(G y) * U y)                                       y = rms_norm(x)

No additive biases, and logits that are not scaled. Positions enter through ``bias`` alone, one number for a head and a
distance, which is learned once and shared by all layers.

A pass reads each weight once, so the weights (4.8 billion in T5-XXL) are never held: ``T5Weights`` reads one matrix at
a time from a memory-mapped file, whatever it is stored as, and it is converted as it is used. The residual stream and
the attention are float32, the matrix products ``dtype``. It cannot be float16: the hidden layers of T5-XXL exceed
65504.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openltx.cache import TensorCache
from openltx.errors import RequestError
from openltx.models.text import TextContext

Part = Literal[
    "attention_norm", "query", "key", "value", "attention_out", "hidden_norm", "gate", "up", "down",
    "distances", "final_norm",
]  # fmt: skip
"""What a layer consists of; the last two belong to the whole encoder."""

Tokenize = Callable[[Sequence[str]], list[list[int]]]
"""Texts to token ids, each ending with T5's end token."""

MAX_TOKENS = 256  # with the end token; what every release was trained with
PROMPTS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """The sizes of a T5 v1.1 encoder; the defaults are those of T5-XXL.

    num_buckets   of distances; those from ``max_distance`` tokens on share one
    """

    vocabulary: int = 32128
    channels: int = 4096
    hidden_channels: int = 10240
    num_heads: int = 64
    head_dim: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    norm_eps: float = 1e-6


@runtime_checkable  # for the shape checks of the tests
class T5Weights(Protocol):
    """The weights of an encoder, read when they are asked for. ``checkpoints.t5`` finds them in files."""

    @property
    def config(self) -> T5Config: ...

    @property
    def fingerprint(self) -> str:
        """Tells these weights from others."""
        ...

    def read(self, part: Part, layer: int = 0) -> Tensor:
        """One tensor of any floating type, on the CPU."""
        ...

    def words(self, ids: Int[Tensor, "n"]) -> Float[Tensor, "n e"]:
        """Rows of the word embeddings."""
        ...


@dataclass(frozen=True)
class T5:
    """The network, over weights that it does not hold."""

    weights: T5Weights
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def __call__(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """The last states of tokens ``ids``, float32; no token attends to one whose ``mask`` is False."""
        config = self.weights.config
        words = self.weights.words(ids.flatten()).to(self.device).float()
        x = rearrange(words, "(b l) e -> b l e", b=len(ids))
        bias = self._bias(mask.to(self.device))
        for layer in range(config.num_layers):
            x = x + self._attend(self._norm(x, "attention_norm", layer), layer, bias)
            x = x + self._transform(self._norm(x, "hidden_norm", layer), layer)
        return self._norm(x, "final_norm")

    def _bias(self, mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b h l l"]:
        """What is added to the logits: the distances' biases, and minus infinity where nothing is to be seen."""
        buckets = distance_buckets(mask.shape[1], self.weights.config).to(self.device)
        distances = self._read("distances").float()  # buckets h
        bias = rearrange(distances[buckets], "l m h -> 1 h l m")
        return bias.masked_fill(~mask[:, None, None, :], -torch.inf)

    def _attend(self, y: Float[Tensor, "b l e"], layer: int, bias: Float[Tensor, "b h l l"]) -> Float[Tensor, "b l e"]:
        q, k, v = (
            rearrange(self._linear(y, part, layer).float(), "b l (h d) -> b h l d", h=self.weights.config.num_heads)
            for part in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self._linear(rearrange(attended, "b h l d -> b l (h d)"), "attention_out", layer)

    def _transform(self, y: Float[Tensor, "b l e"], layer: int) -> Float[Tensor, "b l e"]:
        gate = F.gelu(self._linear(y, "gate", layer), approximate="tanh")
        return self._linear(gate * self._linear(y, "up", layer), "down", layer)

    def _norm(self, x: Float[Tensor, "b l e"], part: Part, layer: int = 0) -> Float[Tensor, "b l e"]:
        weight = self._read(part, layer).float()
        return F.rms_norm(x, (x.shape[-1],), weight, self.weights.config.norm_eps)

    def _linear(self, x: Float[Tensor, "b l c"], part: Part, layer: int) -> Float[Tensor, "b l d"]:
        return F.linear(x.to(self.dtype), self._read(part, layer).to(self.dtype))

    def _read(self, part: Part, layer: int = 0) -> Tensor:
        return self.weights.read(part, layer).to(self.device)


def distance_buckets(length: int, config: T5Config) -> Int[Tensor, "l l"]:
    """Which bias a query (row) has for a key (column): half of them are for keys further on.

    In each half, the nearest distances have a bias of their own, the others share biases by the logarithm.
    """
    positions = torch.arange(length)
    offset = positions[None, :] - positions[:, None]
    half = config.num_buckets // 2
    single = half // 2
    far = offset.abs().clamp(min=1).float() / single
    shared = single + (torch.log(far) / math.log(config.max_distance / single) * (half - single)).long()
    bucket = torch.where(offset.abs() < single, offset.abs(), shared.clamp(max=half - 1))
    return bucket + half * (offset > 0)


class T5Encoder:
    """A T5 with its tokenizer and a memory, as a ``TextEncoder``.

    As in the releases' code a text loses its outer white space, is cut at ``max_tokens`` tokens (with a warning) and
    padded to them. The padding is added afterwards, as zeros: no token sees it, so T5 need not compute it.

    Prompts that ``cache`` knows need no weights at all.
    """

    def __init__(
        self,
        weights: T5Weights,
        tokenize: Tokenize,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        cache: TensorCache | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        if dtype not in (torch.float32, torch.bfloat16):
            raise RequestError(
                f"T5 cannot be computed in {str(dtype).removeprefix('torch.')}: the values in its hidden layers go "
                "beyond 65504, where float16 ends, and become NaN. Choose bfloat16 or float32; files that store "
                "float16 or float8 are converted."
            )
        self.network = T5(weights, dtype, device)
        self.channels = weights.config.channels
        self.name = "t5-v1_1-xxl" if (self.channels, weights.config.num_layers) == (4096, 24) else "t5-v1_1"
        self.tokenize, self.cache, self.max_tokens = tokenize, cache, max_tokens

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextContext:
        """The token states of ``prompts``, one row a prompt, padded with zeros to ``max_tokens``.

        Warns of every prompt that is cut.
        """
        if isinstance(prompts, str):
            raise TypeError("encode takes a sequence of prompts; for a single one give [prompt].")
        texts = [prompt.strip() for prompt in prompts]
        ids = [self._cut(*pair) for pair in zip(texts, self.tokenize(texts), strict=True)]
        keys = [self._key(tokens) for tokens in ids]
        wanted = dict(zip(keys, ids, strict=True))
        known = {key: self._recall(key, len(tokens)) for key, tokens in wanted.items()}
        missing = {key: tokens for key, tokens in wanted.items() if known[key] is None}
        states = {key: state for key, state in known.items() if state is not None} | self._compute(missing)
        lengths = torch.tensor([len(tokens) for tokens in ids])
        padded = [F.pad(states[key], (0, 0, 0, self.max_tokens - len(states[key]))) for key in keys]
        mask = torch.arange(self.max_tokens) < lengths[:, None]
        return TextContext(embeddings=torch.stack(padded), mask=mask.to(self.network.device))

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights."""
        return self.network.weights.fingerprint

    def _compute(self, missing: Mapping[str, list[int]]) -> dict[str, Tensor]:
        """The states of token ids by key; each weight is read once for every ``PROMPTS_AT_ONCE`` of them."""
        states = {}
        for start in range(0, len(missing), PROMPTS_AT_ONCE):
            some = list(missing.items())[start : start + PROMPTS_AT_ONCE]
            rows = [torch.tensor(tokens) for _, tokens in some]
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # T5's padding token is 0
            lengths = torch.tensor([len(row) for row in rows])
            mask = torch.arange(padded.shape[1]) < lengths[:, None]
            batch = self.network(padded, mask).to(self.network.dtype)
            for (key, tokens), row in zip(some, batch, strict=True):
                states[key] = row[: len(tokens)].clone()
                if self.cache is not None:
                    self.cache.write(key, states[key])
        return states

    def _recall(self, key: str, length: int) -> Float[Tensor, "l e"] | None:
        """What the cache has, unless it cannot be that prompt's."""
        found = None if self.cache is None else self.cache.read(key)
        if found is None or found.shape != (length, self.channels) or found.dtype != self.network.dtype:
            return None
        return found.to(self.network.device)

    def _key(self, tokens: list[int]) -> str:
        """The tokens stand for text, tokenizer and length; the weights and the number format are the rest."""
        said = f"{self.fingerprint} {self.network.dtype} {tokens}"
        return hashlib.sha256(said.encode()).hexdigest()

    def _cut(self, text: str, tokens: list[int]) -> list[int]:
        if len(tokens) <= self.max_tokens:
            return tokens
        warnings.warn(
            f'The prompt "{text[:40]}..." has {len(tokens)} tokens and is cut: the model reads the first '
            f"{self.max_tokens}, end token included.",
            stacklevel=3,
        )
        return [*tokens[: self.max_tokens - 1], tokens[-1]]
