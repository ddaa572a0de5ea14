"""``openltx embed``: the token states of a prompt, into a file for ``openltx generate --prompt-embeds``."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from openltx.checkpoints.prompts import save_prompts
from openltx.checkpoints.t5 import load_t5
from openltx.cli.output import say
from openltx.errors import RequestError
from openltx.models.text import PromptStates, TextContext
from openltx.pipelines.residency import Device, Precision, choose_device, dtype_of


def embed(
    prompt: str,
    *,
    text_encoder: Path,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    negative: str = "",
    tokenizer: Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Encode a prompt into a file, so that making videos of it needs no text encoder.

    Parameters
    ----------
    prompt
        What the video is to show.
    text_encoder
        The folder or file of a T5 v1.1 encoder (.safetensors or .gguf).
    output
        The .safetensors file to write.
    negative
        What the video should keep away from; it is encoded as well.
    tokenizer
        The encoder's tokenizer.json or spiece.model, if that is not beside it.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    precision
        Number format; auto takes bfloat16 where the hardware computes in it, else float32.
    """
    if not prompt.strip():
        raise RequestError('The prompt is empty. Say what the video shows, for example "a red ball bounces".')
    _require_place_for(output)
    place = choose_device(device)
    with Console(stderr=True).status("Reading the prompt ..."):
        encoder = load_t5(text_encoder, tokenizer=tokenizer, dtype=dtype_of(precision, place), device=place)
        context = encoder.encode([prompt, negative])
    positive, unwanted = (TextContext(context.embeddings[i : i + 1], context.mask[i : i + 1]) for i in range(2))
    states = PromptStates(positive=positive, negative=unwanted, prompt=prompt, negative_prompt=negative)
    save_prompts(output, states, text_encoder=f"{encoder.name} {encoder.fingerprint}")
    say(
        f"{output}  {int(positive.mask.sum())} tokens of {encoder.channels} channels, "
        f"negative {int(unwanted.mask.sum())}"
    )


def _require_place_for(path: Path) -> None:
    """Raise ``RequestError`` now, before minutes of work, if ``path`` cannot be written later."""
    if path.suffix != ".safetensors":
        raise RequestError(f"{path} cannot be written: token states go into a .safetensors file.")
    if not path.parent.is_dir():
        raise RequestError(f"{path} cannot be written: there is no folder {path.parent}.")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RequestError(f"{path} cannot be written: no permission. Choose another place.")
