"""Whether the tensors of a file are those of the network that it describes: all of them, no others, the same shapes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from openltx.checkpoints.header import StoredTensor
from openltx.errors import CheckpointError
from openltx.models.transformer import TransformerConfig
from openltx.models.upsampler import UpsamplerConfig
from openltx.models.vae.autoencoder import VAEConfig

NetworkConfig = TransformerConfig | VAEConfig | UpsamplerConfig
Network = TypeVar("Network", bound=nn.Module)


def described_module(
    kind: type[Network], config: NetworkConfig, path: Path, stored: Mapping[str, StoredTensor]
) -> Network:
    """The module of ``config``, on the meta device; ``CheckpointError`` unless ``stored`` (official names) fits it."""
    _require_size(path, config, stored)
    try:
        with torch.device("meta"):
            module = kind(config)
    except (ArithmeticError, AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} describes a {kind.__name__} that cannot be built ({error}).") from error
    _require_same(path, module, stored)
    return module


def _require_size(path: Path, config: NetworkConfig, stored: Mapping[str, StoredTensor]) -> None:
    """Compare what is said with what is there, before anything of the size that is said is built."""
    if isinstance(config, VAEConfig):
        layers = sum(block.num_layers for block in (*config.encoder_blocks, *config.decoder_blocks))
        if layers > len(stored):
            raise CheckpointError(
                f"{path} describes a VAE of {layers:,} layers, and holds {len(stored):,} tensors of one. Its config "
                "was changed since it was published: download the file again."
            )
        return
    if not isinstance(config, TransformerConfig):
        return
    found = {int(match[1]) for name in stored if (match := re.match(r"transformer_blocks\.(\d+)\.", name))}
    width = stored["patchify_proj.weight"].shape[0] if "patchify_proj.weight" in stored else config.width
    if found and (max(found) + 1, width) != (config.num_layers, config.width):
        raise CheckpointError(
            f"{path} describes a transformer of {config.num_layers} blocks, {config.width} wide, and holds the tensors "
            f"of {max(found) + 1} blocks, {width} wide. Its config and its tensors are of two models: use the file as "
            "it was published."
        )


def _require_same(path: Path, module: nn.Module, stored: Mapping[str, StoredTensor]) -> None:
    """Raise unless names and shapes are those of the module."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [name for name in expected if name not in stored]
    unexpected = [name for name in stored if name not in expected]
    shapes = [
        f"{name} {list(stored[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = [
        f"{len(names)} {what}: {some(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"The tensors of {path} are not those of the {type(module).__name__} that it describes. "
            f"{'; '.join(problems)}. The file is of another model, or was changed since it was published."
        )


def some(names: list[str], limit: int = 5) -> str:
    """The first few names of a list, for a message."""
    shown = ", ".join(names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "") if names else "none"
