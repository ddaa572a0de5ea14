"""LoRA files, read strictly, every tensor used or refused by name, and written.

    transformer.LAYER.lora_A.weight          diffusers' layout, and the official trainer's
    diffusion_model.LAYER.lora_A.weight      ComfyUI's
    LAYER.lora_A.weight                      no prefix

A is r x inputs and B is outputs x r; ``lora_down`` and ``lora_up`` are other names for them. LAYER is spelled as in
the official files or as in diffusers. The scale alpha / r comes from the layer's ``alpha`` tensor, else from PEFT's
settings in the header, else it is 1. An in-context LoRA is such a file too.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from openltx.checkpoints.fingerprint import file_sha256
from openltx.checkpoints.header import Header, StoredTensor, read_header, read_tensors
from openltx.checkpoints.keys import TRANSFORMER_ANCHOR, TRANSFORMER_PREFIXES, TRANSFORMER_TABLE, find_prefix
from openltx.checkpoints.single_file import some, write_tensors
from openltx.errors import CheckpointError
from openltx.models.lora import LoRA, LowRank, describe

Part = Literal["down", "up", "alpha"]
Parts = dict[Part, StoredTensor]


@dataclass(frozen=True, kw_only=True)
class LoRADescription:
    """What a LoRA file changes, told from its header alone.

    layout     whose names it uses: "diffusers", "comfyui", "peft" or "plain"
    ranks      the ranks that occur
    made_for   the transformer that has such layers
    modules    the layers, with * for the number of the block, and how many of each
    """

    layout: str
    ranks: tuple[int, ...]
    made_for: str
    modules: dict[str, int]


def load_lora(path: str | Path) -> LoRA:
    """Read a LoRA file; raises ``CheckpointError`` for anything that is not exactly that.

    The tensors stay as they are stored, in pages of the mapped file.
    """
    header = read_header(Path(path))
    layers, stated = _layers(header), _stated_alpha(header)
    tensors = read_tensors(header.tensors)
    _require_finite(header, tensors)

    def change(name: str, parts: Parts) -> LowRank:
        down, up = (tensors[parts[part].name] for part in ("down", "up"))
        if "alpha" in parts:
            return LowRank(down, up, float(tensors[parts["alpha"].name]) / len(down))
        return LowRank(down, up, stated.scale(name, len(down)))

    return LoRA(
        name=header.path.name,
        layers={name: change(name, parts) for name, parts in layers.items()},
        fingerprint=file_sha256(header.path)[:16],
        metadata=header.metadata,
    )


def save_lora(
    path: str | Path,
    lora: LoRA,
    layout: Literal["diffusers", "comfyui"] = "diffusers",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a LoRA in the names of diffusers or of ComfyUI, all of it or nothing.

    alpha / r is multiplied into B, so that every reader agrees on it: not all look for alpha, nor in the same place.
    Raises ``CheckpointError`` if the file cannot be written.
    """
    prefix = {"diffusers": "transformer.", "comfyui": "diffusion_model."}[layout]
    tensors: dict[str, Tensor] = {}
    for name, change in lora.layers.items():
        stem = prefix + (TRANSFORMER_TABLE.rename(name) if layout == "diffusers" else name)
        tensors[f"{stem}.lora_A.weight"] = change.down.detach().to("cpu", dtype).contiguous()
        tensors[f"{stem}.lora_B.weight"] = (change.scale * change.up.detach()).to("cpu", dtype).contiguous()
    write_tensors(Path(path), tensors, {"format": "pt", **(metadata or {})})


def is_lora(header: Header) -> bool:
    """Whether a file looks like a LoRA, be it one that openltx can use or not."""
    return any(".lora_" in name for name in header.tensors)


def describe_lora(header: Header) -> LoRADescription:
    """Say what a LoRA file is; raises ``CheckpointError`` for one that could not be loaded for its names and shapes."""
    layers = _layers(header)
    shapes = {name: (parts["up"].shape[0], parts["down"].shape[1]) for name, parts in layers.items()}
    return LoRADescription(
        layout=" and ".join(sorted({_LAYOUTS[_prefix(name)] for name in header.tensors})),
        ranks=tuple(sorted({parts["down"].shape[0] for parts in layers.values()})),
        made_for=describe(shapes),
        modules=dict(Counter(re.sub(r"(?<=^transformer_blocks\.)\d+", "*", name) for name in layers)),
    )


def _layers(header: Header) -> dict[str, Parts]:
    """The file's tensors by layer (official names) and part, complete and of matching shapes."""
    layers: dict[str, Parts] = {}
    strays, twice = [], []
    for name, stored in header.tensors.items():
        found = _split(name)
        if found is None:
            strays.append(name)
        elif layers.setdefault(found[0], {}).setdefault(found[1], stored) is not stored:
            twice.append(name)
    if not layers:
        raise CheckpointError(_no_lora(header))
    _refuse(
        header, "are no part of a LoRA", strays, "It is another kind of adapter (DoRA, LoKr, whole layers, biases), or "
        "changes more than the transformer; openltx reads the A and B of linear layers, and alpha",
    )  # fmt: skip
    _refuse(header, "are there twice under different names", twice, "It was put together from two files")
    alone = [_name_of(parts) for parts in layers.values() if not {"down", "up"} <= parts.keys()]
    _refuse(header, "have no counterpart (A needs B, alpha needs both)", alone, "It is incomplete: download it again")
    for parts in layers.values():
        _require_shapes(header, parts)
    return layers


def _split(name: str) -> tuple[str, Part] | None:
    """The layer's official name, and which of its tensors this is; None for a tensor of no LoRA."""
    prefix = _prefix(name)
    for ending, part in _ENDINGS.items():
        if name.endswith(f".{ending}"):
            return TRANSFORMER_TABLE.inverse.rename(name[len(prefix) : -len(ending) - 1]), part
    return None


def _prefix(name: str) -> str:
    return next(prefix for prefix in _LAYOUTS if name.startswith(prefix))


def _require_shapes(header: Header, parts: Parts) -> None:
    down, up = parts["down"], parts["up"]
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise CheckpointError(
            f"{header.path}: {down.name} is {list(down.shape)} and {up.name} is {list(up.shape)}, but A must be rank x "
            "inputs and B outputs x rank. The file was damaged, or is no LoRA of linear layers."
        )
    alpha = parts.get("alpha")
    if alpha is not None and math.prod(alpha.shape) != 1:
        raise CheckpointError(f"{header.path}: {alpha.name} is {list(alpha.shape)}, but alpha must be one number.")
    for stored in parts.values():
        if stored.dtype not in _FLOATS:
            raise CheckpointError(
                f"{header.path}: {stored.name} is stored as {stored.dtype}. openltx reads LoRAs of floating-point "
                "numbers only; use the file before it was quantised."
            )


def _require_finite(header: Header, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        finite = torch.isfinite(tensor.float())
        if not bool(finite.all()):
            raise CheckpointError(
                f"{header.path}: {name} has {int((~finite).sum())} values that are NaN or infinite. The training "
                "diverged, or the file is damaged: take an earlier checkpoint, or download it again."
            )


def _refuse(header: Header, what: str, names: list[str], why: str) -> None:
    if names:
        raise CheckpointError(f"{header.path}: {len(names)} of its tensors {what}: {some(names)}. {why}.")


def _no_lora(header: Header) -> str:
    prefixes = (*TRANSFORMER_PREFIXES, "transformer.")
    if any(find_prefix(header.tensors, prefixes, name) is not None for name in (TRANSFORMER_ANCHOR, "proj_in.weight")):
        return f"{header.path} is a whole model and no LoRA. Load it as the model itself (--model)."
    return (
        f"{header.path} holds no LoRA: none of its {len(header.tensors)} tensors ends in {', '.join(_ENDINGS)} "
        f"({some(sorted(header.tensors))}). Give a LoRA of an LTX-Video transformer."
    )


def _name_of(parts: Parts) -> str:
    return next(iter(parts.values())).name


@dataclass(frozen=True)
class _StatedAlpha:
    """What PEFT's settings say of alpha: for all layers, and for those whose name in diffusers matches a pattern."""

    alpha: float | None = None
    patterns: Mapping[str, float] = field(default_factory=dict)
    root: bool = False  # rank-stabilised: divide by the root of the rank

    def scale(self, layer: str, rank: int) -> float:
        name = TRANSFORMER_TABLE.rename(layer)
        matching = (alpha for pattern, alpha in self.patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", name))
        alpha = next(matching, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.root else rank)


def _stated_alpha(header: Header) -> _StatedAlpha:
    """PEFT's settings as diffusers writes them into the header, with or without a prefix to their names."""
    text = header.metadata.get(_PEFT_ENTRY)
    if not text:
        return _StatedAlpha()
    try:
        stated = {name.removeprefix("transformer."): value for name, value in json.loads(text).items()}
        alpha = stated.get("lora_alpha")
        patterns = {pattern: float(value) for pattern, value in (stated.get("alpha_pattern") or {}).items()}
        for pattern in patterns:
            re.compile(pattern)
        return _StatedAlpha(None if alpha is None else float(alpha), patterns, stated.get("use_rslora") is True)
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise CheckpointError(
            f'{header.path}: the entry "{_PEFT_ENTRY}" of its header, which says how strong the LoRA is, cannot be '
            f"understood ({error}). Download it again, or save it without that entry."
        ) from error


_PEFT_ENTRY = "lora_adapter_metadata"

_LAYOUTS = {
    "transformer.": "diffusers",
    "diffusion_model.": "comfyui",
    "model.diffusion_model.": "comfyui",
    "base_model.model.": "peft",
    "": "plain",
}
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_ENDINGS: dict[str, Part] = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "alpha": "alpha",
}
