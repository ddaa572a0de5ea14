"""What a safetensors file is, by the names of its tensors: an LTX-Video model, or one of the things that go with it."""

from collections.abc import Iterable
from typing import Literal

from openltx.checkpoints.header import Header
from openltx.checkpoints.keys import (
    TRANSFORMER_ANCHOR,
    TRANSFORMER_PREFIXES,
    VAE_ANCHOR,
    VAE_PREFIXES,
    find_prefix,
)
from openltx.errors import CheckpointError

Kind = Literal[
    "model", "transformer", "VAE", "LoRA", "latent upsampler", "T5 text encoder", "part of a diffusers folder"
]  # fmt: skip

_LORA = (".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora.")
_UPSAMPLER = {"initial_conv.weight", "final_conv.weight"}
_T5 = ("encoder.block.0.layer.0.SelfAttention.q.", "enc.blk.0.attn_q.")

# kind -> what to do with such a file instead
_REMEDIES: dict[str, str] = {
    "LoRA": "Give the model that it was made for with --model, and this file as its LoRA.",
    "latent upsampler": "It enlarges the latents between two passes: give the model itself with --model.",
    "T5 text encoder": "It reads the prompts of a model: give the model itself with --model.",
    "part of a diffusers folder": "Give the folder that has transformer/ and vae/ in it.",
}


def kind_of(names: Iterable[str]) -> Kind | None:
    """What a file with tensors of these names is; None if it is nothing that belongs to LTX-Video."""
    names = set(names)
    if any(marker in name for name in names for marker in _LORA):
        return "LoRA"
    if names >= _UPSAMPLER:
        return "latent upsampler"
    if any(name.startswith(_T5) for name in names):
        return "T5 text encoder"
    transformer = find_prefix(names, TRANSFORMER_PREFIXES, TRANSFORMER_ANCHOR) is not None
    vae = find_prefix(names, VAE_PREFIXES, VAE_ANCHOR) is not None
    if ("proj_in.weight" in names and not transformer) or "latents_mean" in names:
        return "part of a diffusers folder"
    if transformer and vae:
        return "model"
    return "transformer" if transformer else "VAE" if vae else None


def refuse_companions(header: Header) -> None:
    """Raise ``CheckpointError`` if the file is not a model, but one of the things that go with one."""
    kind = kind_of(header.tensors)
    if kind in _REMEDIES:
        raise CheckpointError(f"{header.path} is a {kind}, not a model. {_REMEDIES[kind]}")
