"""Low-rank changes of linear layers (LoRA, arXiv 2106.09685): merged into the weights, or applied beside them.

    W' = W + sum_i s_i (alpha_i / r_i) B_i A_i            merged: a step costs what it did
    y  = W x + sum_i s_i (alpha_i / r_i) B_i (A_i x)      applied: W stays as it is, in whatever form it is stored

s is the strength that the user chooses: 1 as it was trained, negative away from it, 0 nothing at all. r is the rank.
Merging into bfloat16 weights rounds the sum, so that a change below 1/256 of a weight is partly lost; applying does
not round the weights. Both give back a function that undoes them exactly, and leave every parameter's name alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openltx.errors import CheckpointError, RequestError
from openltx.kernels.fused import gelu
from openltx.kernels.linear import Activation, Linear
from openltx.models.int8 import Int8Linear
from openltx.models.presets import transformer_preset
from openltx.models.transformer import VideoTransformer

Undo = Callable[[], None]
"""Makes the transformer what it was before, bit for bit."""
Shapes = Mapping[str, tuple[int, ...]]
"""(outputs, inputs) of linear layers by name."""


@dataclass(frozen=True)
class LowRank:
    """The change of one layer: ``scale``, which is alpha / r, times B A. Any floating type, on any device."""

    down: Float[Tensor, "r c"]  # A
    up: Float[Tensor, "d r"]  # B
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(d, c), as the layer's weight has it."""
        return self.up.shape[0], self.down.shape[1]

    def of_weight(self, strength: float, device: torch.device) -> Float[Tensor, "d c"]:
        """What is added to W, in float32."""
        down, up = (matrix.to(device, torch.float32) for matrix in (self.down, self.up))
        return strength * self.scale * (up @ down)

    def of_output(self, x: Float[Tensor, "*rows c"], strength: float) -> Float[Tensor, "*rows d"]:
        """What is added to W x, in the type and on the device of x."""
        return strength * self.scale * F.linear(F.linear(x, self.down.to(x)), self.up.to(x))


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """What a LoRA file holds.

    name         the file's name
    layers       the changes, by the official name of the linear layer
    fingerprint  the first 16 hexadecimal digits of the file's SHA-256
    metadata     what its header says besides
    """

    name: str
    layers: Mapping[str, LowRank]
    fingerprint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


Weighted = Sequence[tuple[LoRA, float]]
"""LoRAs, each with its strength."""


@dataclass(frozen=True, kw_only=True)
class UsedLoRA:
    """Which LoRA a model carries, and how strongly."""

    name: str
    fingerprint: str
    strength: float


@torch.no_grad()
def merge(transformer: VideoTransformer, loras: Weighted) -> Undo:
    """Put W' in the place of W in every layer that is changed.

    W' is a new tensor, computed in float32. The old ones live on as long as the returned function does: drop it to
    free them. On a CPU they are pages of the weight file, and no memory, if they were loaded as they are stored.

    Raises ``CheckpointError`` for a LoRA of another model, ``RequestError`` for weights of eight bits or on the meta
    device (weights that pass through memory). Then nothing was changed.
    """
    touched = _touched(transformer, loras)
    linears = {name: layer for name, (layer, _) in touched.items() if _is_mergeable(layer)}
    if len(linears) < len(touched) or transformer.block_source is not None:
        raise RequestError(
            "A LoRA cannot be merged into weights of eight bits, nor into weights that are not in memory. Merge it "
            'before they are quantised, or apply it (lora_mode="applied").'
        )
    originals = {name: layer.weight for name, layer in linears.items()}
    for name, (_, changes) in touched.items():
        old = originals[name]
        new = old.float()
        for change, strength in changes:
            new = new + change.of_weight(strength, old.device)
        linears[name].weight = nn.Parameter(new.to(old.dtype), requires_grad=old.requires_grad)

    def undo() -> None:
        for name, weight in originals.items():
            linears[name].weight = weight

    return undo


def apply(transformer: VideoTransformer, loras: Weighted) -> Undo:
    """Let every layer that is changed add B (A x) to its output, before its activation. No weight is touched.

    Works on any linear layer, ``Int8Linear`` included, and is the last thing to do to a transformer before it is
    compiled: quantising replaces the layers. The LoRAs move to the transformer's device and type once, here.

    Raises ``CheckpointError`` for a LoRA of another model, ``RequestError`` if LoRAs are applied already. Then nothing
    was changed.
    """
    touched = _touched(transformer, loras)
    if any(isinstance(hook, _Addition) for layer, _ in touched.values() for hook in layer._forward_hooks.values()):
        raise RequestError("LoRAs are applied already. Undo that, and apply all of them at once.")
    device, dtype = next(transformer.parameters()).device, transformer.dtype
    undos: list[Undo] = []
    for layer, changes in touched.values():
        placed = tuple(
            (replace(change, down=change.down.to(device, dtype), up=change.up.to(device, dtype)), strength)
            for change, strength in changes
        )
        undos.append(_add(layer, placed))

    def undo() -> None:
        for one in undos:
            one()

    return undo


def is_mergeable(transformer: VideoTransformer) -> bool:
    """Whether ``merge`` can change its weights: not those of eight bits, nor those that are not in memory."""
    stays = transformer.block_source is None  # whoever gives the blocks reads them from the file anew
    return stays and all(map(_is_mergeable, _linear_layers(transformer).values()))


def linear_shapes(transformer: VideoTransformer) -> dict[str, tuple[int, ...]]:
    """The shapes of all linear layers, quantised or not."""
    return {name: (layer.out_features, layer.in_features) for name, layer in _linear_layers(transformer).items()}


def require_fit(lora: LoRA, shapes: Shapes) -> None:
    """Raise ``CheckpointError`` unless the linear layers of a transformer, ``shapes``, are those the LoRA changes."""
    unknown = [name for name in lora.layers if name not in shapes]
    wrong = [
        f"{name} is {' x '.join(map(str, change.shape))} instead of {' x '.join(map(str, shapes[name]))}"
        for name, change in lora.layers.items()
        if name in shapes and change.shape != shapes[name]
    ]
    if not unknown and not wrong:
        return
    theirs = describe({name: change.shape for name, change in lora.layers.items()})
    problems = [
        f"{len(names)} {what}, such as {names[0]}"
        for what, names in (("of its layers are not in the model", unknown), ("have another shape", wrong))
        if names
    ]
    raise CheckpointError(
        f"The LoRA {lora.name} is not for this model: it changes {theirs}, the model is {describe(shapes)}. "
        f"{'; '.join(problems)}. Use it with the model it was trained on, or take a LoRA for this one."
    )


def describe(shapes: Shapes) -> str:
    """What transformer has linear layers of these names and shapes, in words: its width tells the release."""
    numbers = {int(match[1]) for name in shapes if (match := _BLOCK.match(name))}
    widths = [min(shape) for name, shape in shapes.items() if _BLOCK.match(name)]
    if not widths:
        return "no blocks of an LTX-Video transformer"
    width = max(set(widths), key=widths.count)
    release = next((name.upper() for name in ("2b", "13b") if transformer_preset(name).width == width), None)
    size = f"{width} wide, as the {release} releases are" if release else f"{width} wide"
    return f"blocks {min(numbers)} to {max(numbers)} of a transformer {size}"


@dataclass(frozen=True)
class _Addition:
    """A forward hook: the layer's output without its activation becomes that of the changed layer."""

    changes: tuple[tuple[LowRank, float], ...]
    activation: Activation

    def __call__(self, _layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        (x,) = inputs
        for change, strength in self.changes:
            y = y + change.of_output(x, strength)
        return gelu(y) if self.activation == "gelu" else y


def _add(layer: nn.Linear | Int8Linear, changes: tuple[tuple[LowRank, float], ...]) -> Undo:
    """Hang the changes on a layer; its activation moves into the hook."""
    activation: Activation = layer.activation if isinstance(layer, Linear | Int8Linear) else "none"
    handle = layer.register_forward_hook(_Addition(changes, activation))
    _set_activation(layer, "none")

    def undo() -> None:
        handle.remove()
        _set_activation(layer, activation)

    return undo


def _set_activation(layer: nn.Module, activation: Activation) -> None:
    if isinstance(layer, Linear | Int8Linear):
        layer.activation = activation


def _touched(
    transformer: VideoTransformer, loras: Weighted
) -> dict[str, tuple[nn.Linear | Int8Linear, list[tuple[LowRank, float]]]]:
    """Every layer that any of the LoRAs changes, and how. All of them are checked; strength 0 changes nothing."""
    layers = _linear_layers(transformer)
    for lora, _ in loras:
        require_fit(lora, linear_shapes(transformer))
    touched = {}
    for lora, strength in loras:
        for name, change in lora.layers.items() if strength else ():
            touched.setdefault(name, (layers[name], []))[1].append((change, strength))
    return touched


def _linear_layers(transformer: VideoTransformer) -> dict[str, nn.Linear | Int8Linear]:
    return {name: layer for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear | Int8Linear)}


def _is_mergeable(layer: nn.Linear | Int8Linear) -> TypeGuard[nn.Linear]:
    return isinstance(layer, nn.Linear) and layer.weight.dtype.itemsize > 1 and not layer.weight.is_meta


_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")
