"""Captioners: what makes a text of some frames of a clip. Any object with ``caption`` is one; here are the real ones.

    ModelCaptioner       a vision-language model through transformers: a local folder or a hub name
    EndpointCaptioner    a server that speaks OpenAI's chat API: vLLM, SGLang, a paid service

The third way, a person's text files beside the videos, needs no captioner: every record begins with that text.
"""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from openltx.data.prepare.captions import clean
from openltx.data.prepare.looking import Group, keys_of
from openltx.data.prepare.settings import CaptionSettings
from openltx.errors import CheckpointError, DataError, MediaError

LONGEST_SIDE = 768  # pixels of the pictures that captioners are shown
MAX_TOKENS = 400


@runtime_checkable  # for the type checks of the tests
class Captioner(Protocol):
    """What says in words what a clip shows."""

    def caption(self, pictures: Sequence[Image.Image]) -> str:
        """Its text as it comes; raises an ``OpenLTXError`` if there is none."""
        ...


@dataclass(frozen=True)
class ModelCaptioner:
    """A vision-language model: it answers greedily, so the same frames give the same text."""

    name: str
    prompt: str

    def caption(self, pictures: Sequence[Image.Image]) -> str:
        import torch

        processor, model = _load(self.name)
        content = [
            *({"type": "image", "image": picture} for picture in pictures),
            {"type": "text", "text": self.prompt},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)
        return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


@dataclass(frozen=True)
class EndpointCaptioner:
    """A server. The key, if it wants one, is in the environment: OPENAI_API_KEY."""

    url: str
    model: str
    prompt: str

    def caption(self, pictures: Sequence[Image.Image]) -> str:
        import openai

        shown: list[Any] = [{"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in pictures]
        try:
            answer = _client(self.url).chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": [*shown, {"type": "text", "text": self.prompt}]}],
                max_tokens=MAX_TOKENS,
                temperature=0.0,
                seed=0,
            )
        except openai.OpenAIError as error:
            raise DataError(
                f"The captioner at {self.url} did not answer ({error}). What is captioned is kept: run the same "
                "command again when it is there."
            ) from error
        return answer.choices[0].message.content or ""


def captioner_of(settings: CaptionSettings) -> Captioner | None:
    """The captioner that the settings name; None for text files."""
    match settings.backend:
        case "files":
            return None
        case "model":
            assert settings.model is not None
            return ModelCaptioner(settings.model, settings.prompt)
        case "endpoint":
            assert settings.model is not None
            assert settings.url is not None
            return EndpointCaptioner(settings.url, settings.model, settings.prompt)


@dataclass(frozen=True)
class CaptionStep:
    """The work on a group of clips, for a runner: (id, cleaned caption) of each."""

    captioner: Captioner
    frames: int
    max_words: int
    uses_network = True

    def __call__(self, group: Group) -> list[tuple[str, str]]:
        try:
            return [
                (record.id, clean(self.captioner.caption([_shown(key) for key in keys]), self.max_words))
                for record, keys in keys_of(group, self.frames)
            ]
        except MediaError:
            return []  # writing the clip fails for the same reason, and says so


def _shown(frame: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
    picture = Image.fromarray(frame)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


@cache
def _client(url: str) -> Any:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise DataError(f'An endpoint needs the client openai ({error}): pip install "openltx[caption]"') from error
    return OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=5, timeout=300.0)


@cache
def _load(name: str) -> tuple[Any, Any]:
    """The processor and the model, on an accelerator if there is one; safetensors only, no code from its folder."""
    try:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError as error:
        raise DataError(f'A model needs transformers ({error}): pip install "openltx[caption]"') from error
    try:
        processor = AutoProcessor.from_pretrained(name)
        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype="auto", use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{name} cannot be loaded as a vision-language model ({error}). Give a folder or a hub name of a model "
            "that transformers loads as image-text-to-text, with a chat template."
        ) from error
    return processor, model.eval().to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
