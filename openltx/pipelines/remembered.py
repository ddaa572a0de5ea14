"""A text encoder that reads each prompt once, however often it is asked for it."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from openltx.models.text import TextContext, TextEncoder


class RememberedTexts:
    """A ``TextEncoder`` in front of another: two passes, or two models with the same encoder, need one encoding."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.name = encoder.name
        self.channels = encoder.channels
        self._encoder = encoder
        self._known: dict[str, tuple[Tensor, Tensor]] = {}  # states (l e), mask (l)

    def encode(self, prompts: Sequence[str]) -> TextContext:
        """The token states of ``prompts``; raises what the encoder raises."""
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if unknown:
            fresh = self._encoder.encode(unknown)
            self._known |= dict(zip(unknown, zip(fresh.embeddings, fresh.mask, strict=True), strict=True))
        known = [self._known[prompt] for prompt in prompts]
        states = pad_sequence([states for states, _ in known], batch_first=True)
        return TextContext(states, pad_sequence([mask for _, mask in known], batch_first=True))
