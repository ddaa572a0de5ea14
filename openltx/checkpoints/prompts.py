"""Token states of prompts in a safetensors file, so that a text encoder is needed once and elsewhere.

    prompt_embeds, negative_prompt_embeds                       (1 l e) or (l e), floating point
    prompt_attention_mask, negative_prompt_attention_mask       (1 l) or (l), 1 where a token is real
    metadata "prompt", "negative_prompt", "text_encoder"        what they were made of

The names are those that the releases' code and diffusers call their arguments.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from openltx.checkpoints.header import Header, read_header, read_tensors
from openltx.checkpoints.single_file import replacing
from openltx.errors import CheckpointError
from openltx.models.text import PromptStates, TextContext

_POSITIVE, _NEGATIVE = "prompt", "negative_prompt"


def save_prompts(path: Path, states: PromptStates, text_encoder: str = "") -> None:
    """Write the states of a prompt; raises ``CheckpointError`` if that cannot be done, and leaves no file then."""
    tensors = _named(_POSITIVE, states.positive)
    if states.negative is not None:
        tensors |= _named(_NEGATIVE, states.negative)
    texts = {_POSITIVE: states.prompt, _NEGATIVE: states.negative_prompt, "text_encoder": text_encoder}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt", **texts})
        except SafetensorError as error:  # a full disk arrives as this, and not as an OSError
            raise OSError(str(error)) from error


def load_prompts(path: Path) -> PromptStates:
    """The states in a file; raises ``CheckpointError`` if it is damaged or holds something else."""
    header = read_header(path)
    has_negative = f"{_NEGATIVE}_embeds" in header.tensors
    return PromptStates(
        positive=_context(header, _POSITIVE),
        negative=_context(header, _NEGATIVE) if has_negative else None,
        prompt=header.metadata.get(_POSITIVE, ""),
        negative_prompt=header.metadata.get(_NEGATIVE, ""),
    )


def _named(prefix: str, context: TextContext) -> dict[str, Tensor]:
    tensors = {f"{prefix}_embeds": context.embeddings, f"{prefix}_attention_mask": context.mask}
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _context(header: Header, prefix: str) -> TextContext:
    names = (f"{prefix}_embeds", f"{prefix}_attention_mask")
    for name in names:
        if name not in header.tensors:
            raise CheckpointError(
                f"{header.path} has no tensor {name}; it has {', '.join(header.tensors) or 'none'}. Token states of a "
                'prompt are written by: openltx embed "..." -o FILE'
            )
    embeddings, mask = read_tensors({name: header.tensors[name] for name in names}).values()
    embeddings = embeddings[None] if embeddings.ndim == 2 else embeddings
    mask = mask[None] if mask.ndim == 1 else mask
    if embeddings.ndim != 3 or len(embeddings) != 1 or mask.shape != embeddings.shape[:2]:
        raise CheckpointError(
            f"{header.path} does not hold the states of one prompt: {names[0]} is {list(embeddings.shape)} and "
            f"{names[1]} {list(mask.shape)}; they must be [1, tokens, width] and [1, tokens]."
        )
    if not embeddings.is_floating_point() or embeddings.itemsize < 2:
        raise CheckpointError(
            f"{names[0]} in {header.path} is {embeddings.dtype}; it must be float32, float16 or bfloat16."
        )
    if not ((mask == 0) | (mask == 1)).all() or not mask.any():
        raise CheckpointError(
            f"{names[1]} in {header.path} must be 1 for tokens and 0 for padding, with a token at least."
        )
    return TextContext(embeddings, mask.bool())
