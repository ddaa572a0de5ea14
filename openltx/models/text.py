"""Words become token states: the frozen text encoder that the transformer's cross-attention reads. (Paper 2.3.)

A text encoder is anything with a name, a width and ``encode``. The bundled one is all-MiniLM-L6-v2, a BERT of six
layers and 384 channels; the transformer gets its *token states* (the last hidden layer), not a pooled sentence vector.
The empty prompt has states too, those of its start and end token: they are the null text of classifier-free guidance.

The released models read T5 (``models.t5``).

``MiniLM`` is BERT as published (post-norm residuals, exact GELU, learned positions) for a single segment, whose
embedding is already part of the positions. ``checkpoints.text`` reads its weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openltx.errors import RequestError


@dataclass(frozen=True)
class TextContext:
    """The token states of a batch of prompts, padded to the longest; ``mask`` is True where a token is real."""

    embeddings: Float[Tensor, "b l e"]
    mask: Bool[Tensor, "b l"]

    def trimmed(self) -> "TextContext":
        """Without the padding that all prompts share: it is masked, so it only costs time."""
        length = int(self.mask.any(0).nonzero().max()) + 1 if self.mask.any() else self.mask.shape[1]
        return TextContext(self.embeddings[:, :length], self.mask[:, :length])


def join(contexts: Sequence[TextContext]) -> TextContext:
    """Several contexts as one batch, padded with zeros to the longest."""
    length = max(context.mask.shape[1] for context in contexts)
    missing = [length - context.mask.shape[1] for context in contexts]
    embeddings = [F.pad(context.embeddings, (0, 0, 0, n)) for context, n in zip(contexts, missing, strict=True)]
    masks = [F.pad(context.mask, (0, n)) for context, n in zip(contexts, missing, strict=True)]
    return TextContext(torch.cat(embeddings), torch.cat(masks))


@dataclass(frozen=True, kw_only=True)
class PromptStates:
    """A prompt and what to keep away from, as token states that were made before; one sample each.

    ``prompt`` and ``negative_prompt`` are the texts they were made of, as far as they are known.
    """

    positive: TextContext
    negative: TextContext | None = None
    prompt: str = ""
    negative_prompt: str = ""


@runtime_checkable  # for the shape checks of the tests
class TextEncoder(Protocol):
    """What the pipeline asks of a text encoder."""

    @property
    def name(self) -> str:
        """How a checkpoint names the encoder that its transformer was trained with."""
        ...

    @property
    def channels(self) -> int:
        """The width e of the token states."""
        ...

    def encode(self, prompts: Sequence[str]) -> TextContext:
        """The token states of ``prompts``; raises ``RequestError`` if one is too long, or warns that it was cut."""
        ...


@dataclass(frozen=True, kw_only=True)
class MiniLMConfig:
    """The sizes of a ``MiniLM``; the defaults are those of all-MiniLM-L6-v2, with positions for ``max_tokens``."""

    vocabulary: int = 30522
    max_tokens: int = 128
    channels: int = 384
    hidden_channels: int = 1536
    num_heads: int = 12
    num_layers: int = 6
    norm_eps: float = 1e-12


class MiniLMEncoder(nn.Module):
    """A frozen ``MiniLM`` with its tokenizer, as a ``TextEncoder``.

    ``tokenize`` gives each prompt's token ids, start and end token included.
    """

    def __init__(self, name: str, model: "MiniLM", tokenize: Callable[[Sequence[str]], list[list[int]]]):
        super().__init__()
        self.name = name
        self.channels = model.config.channels
        self.model = model.eval().requires_grad_(False)
        self.tokenize = tokenize

    @torch.no_grad()  # not inference_mode: training keeps these states for its backward pass
    def encode(self, prompts: Sequence[str]) -> TextContext:
        """The token states of ``prompts``, one row a prompt, padded with zeros to the longest.

        Raises ``RequestError`` if a prompt is longer than the encoder takes; none is ever cut.
        """
        if isinstance(prompts, str):
            raise TypeError("encode takes a sequence of prompts; for a single one give [prompt].")
        ids = self.tokenize(prompts)
        for prompt, tokens in zip(prompts, ids, strict=True):
            self._require_fits(prompt, len(tokens))
        device = self.model.words.device
        padded = nn.utils.rnn.pad_sequence([torch.tensor(tokens) for tokens in ids], batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in ids])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).to(device)
        states = self.model(padded.to(device), mask)
        return TextContext(embeddings=states * mask[..., None], mask=mask)

    def _require_fits(self, prompt: str, num_tokens: int) -> None:
        limit = self.model.config.max_tokens
        if num_tokens > limit:
            raise RequestError(
                f'The prompt "{prompt[:40]}..." has {num_tokens} tokens (start and end included); the text encoder '
                f"{self.name} takes at most {limit}. Shorten it by about {num_tokens - limit} words."
            )


class MiniLM(nn.Module):
    """A small BERT that gives every token's last hidden state."""

    def __init__(self, config: MiniLMConfig):
        super().__init__()
        self.config = config
        # not nn.Embedding: its random init, on the meta device, costs a second and a half of torch's own imports
        self.words = nn.Parameter(torch.empty(config.vocabulary, config.channels))
        self.positions = nn.Parameter(torch.empty(config.max_tokens, config.channels))
        self.norm = nn.LayerNorm(config.channels, eps=config.norm_eps)
        self.layers = nn.ModuleList(MiniLMLayer(config) for _ in range(config.num_layers))

    def forward(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """The states of tokens ``ids``; no token attends to one whose ``mask`` is False."""
        x = self.norm(F.embedding(ids, self.words) + self.positions[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask)
        return x


class MiniLMLayer(nn.Module):
    """Self-attention and a GELU network, each with a residual that is normalised after the sum."""

    def __init__(self, config: MiniLMConfig):
        super().__init__()
        width, hidden = config.channels, config.hidden_channels
        self.num_heads = config.num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.hidden = nn.Linear(width, hidden)
        self.hidden_out = nn.Linear(hidden, width)
        self.hidden_norm = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, x: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """One layer on states ``x``."""
        q, k, v = (
            rearrange(project(x), "b l (heads d) -> b heads l d", heads=self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = self.attention_norm(x + self.attention_out(rearrange(attended, "b heads l d -> b l (heads d)")))
        return self.hidden_norm(x + self.hidden_out(F.gelu(self.hidden(x))))
