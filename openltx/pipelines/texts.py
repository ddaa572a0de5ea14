"""The words of a request: who encodes them, and what is given in their place."""

from dataclasses import replace
from pathlib import Path

import torch

from openltx.checkpoints.prompts import load_prompts
from openltx.checkpoints.t5 import load_t5
from openltx.errors import CheckpointError, RequestError
from openltx.models.bundle import LTXModel
from openltx.models.t5 import T5Encoder
from openltx.models.text import PromptStates, TextContext, TextEncoder
from openltx.pipelines.request import GenerationRequest


def find_encoder(
    model: str | Path,
    text_encoder: str | Path | None,
    tokenizer: str | Path | None,
    dtype: torch.dtype,
    device: torch.device,
) -> T5Encoder | None:
    """The T5 that is asked for, else the one in the model's own diffusers folder, else None."""
    if text_encoder is None:
        if not (Path(model) / "text_encoder" / "config.json").is_file():
            return None
        text_encoder = model
    return load_t5(text_encoder, tokenizer=tokenizer, dtype=dtype, device=device)


def with_encoder(model: LTXModel, encoder: T5Encoder) -> LTXModel:
    """The model, reading its prompts through ``encoder``; raises ``CheckpointError`` if that is too wide or narrow."""
    reads = model.transformer.config.caption_channels
    if encoder.channels != reads:
        raise CheckpointError(
            f"The text encoder gives {encoder.channels} channels, and the transformer of {model.name} reads {reads}: "
            "it was trained with another one. The released models read T5 v1.1 XXL, with 4096."
        )
    return replace(model, text=encoder)


def given_states(
    request: GenerationRequest, states: PromptStates | None
) -> tuple[GenerationRequest, PromptStates | None]:
    """The states that stand for the request's words (given, or in its file), and the request with their texts.

    Raises ``RequestError`` if the request asks for a text that the states were not made of.
    """
    if states is None and request.prompt_embeds is not None:
        states = load_prompts(Path(request.prompt_embeds))
    if states is None:
        return request, None
    for field, asked, made_of in (
        ("prompt", request.prompt, states.prompt),
        ("negative", request.negative, states.negative_prompt),
    ):
        if asked and asked.strip() and made_of and asked.strip() != made_of.strip():
            raise RequestError(
                f'The given token states were made of the {field} "{made_of}", and the request says "{asked}". Leave '
                f"{field} out, or encode it anew with openltx embed."
            )
    texts = {"prompt": states.prompt or request.prompt, "negative": states.negative_prompt or request.negative}
    return replace(request, **texts), states


def token_states(
    model: LTXModel, request: GenerationRequest, states: PromptStates | None, *, negative: bool
) -> list[TextContext]:
    """The states of the prompt and, where it is needed, of the negative prompt; those that are given, or encoded.

    Both are encoded together, so that the text encoder's weights are read once. Raises ``CheckpointError`` if there is
    no encoder for what is not given.
    """
    if states is None:
        texts = [request.prompt.strip(), (request.negative or "").strip()][: 2 if negative else 1]
        context = _encoder(model).encode(texts)
        return [
            TextContext(context.embeddings[i : i + 1], context.mask[i : i + 1]).trimmed() for i in range(len(texts))
        ]
    contexts = [states.positive]
    if negative:
        unwanted = (request.negative or "").strip()
        contexts.append(states.negative or _encoder(model, "the negative prompt").encode([unwanted]))
    for context in contexts:
        _require_fitting(model, context)
    return [context.trimmed() for context in contexts]


def _encoder(model: LTXModel, what: str = "a prompt") -> TextEncoder:
    if model.text is None:
        raise CheckpointError(
            f'The model "{model.name}" comes without a text encoder, so it cannot read {what}. Give its encoder, for '
            "the released models a T5 v1.1 XXL, with --text-encoder PATH (openltx.load(..., text_encoder=PATH)), or "
            "token states that openltx embed made with --prompt-embeds FILE."
        )
    return model.text


def _require_fitting(model: LTXModel, context: TextContext) -> None:
    """Raise ``RequestError`` if the transformer cannot read these states."""
    shape, reads = list(context.embeddings.shape), model.transformer.config.caption_channels
    if shape[0] != 1 or shape[2] != reads:
        raise RequestError(
            f"The given token states have the shape {shape}; the transformer of {model.name} reads "
            f"[1, tokens, {reads}]. They are of several prompts, or were made by another text encoder."
        )
    if not context.embeddings.isfinite().all():
        raise RequestError("The given token states have values that are not numbers (NaN or infinite): make them anew.")
