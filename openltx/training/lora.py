"""The trained half of a LoRA: A and B of each chosen layer, hung on a transformer that stays as it is.

    y = W x + (alpha / r) B A dropout(x)        A starts random, B at zero, so that training starts from the base

Names, initialisation and scale are PEFT's, so that its files and ours are the same (tests/parity). What is trained here
is what ``models.lora`` merges or applies. The matrices are float32 whatever the base is stored in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openltx.checkpoints.keys import TRANSFORMER_TABLE
from openltx.errors import RunError
from openltx.kernels.fused import gelu
from openltx.kernels.linear import Activation, Linear
from openltx.models.lora import LoRA, LowRank
from openltx.models.transformer import VideoTransformer
from openltx.noise import derived_generator, derived_seed
from openltx.training.frozen import FrozenLinear

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCKS = (*ATTENTION, "ff.net.0.proj", "ff.net.2")


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Which layers are changed, and by how much freedom.

    rank      r
    alpha     the change is scaled by alpha / r; None: r
    dropout   the part of a layer's inputs that the change does not see, drawn anew in every step
    targets   ends of layer names, official or diffusers': "to_q" is every to_q, "attn1.to_q" those of self-attention
    """

    rank: int = 64
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ATTENTION

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise RunError(
                f"A LoRA of rank {self.rank} on {len(self.targets)} targets changes nothing: ask for 1 or more."
            )
        if not 0 <= self.dropout < 1:
            raise RunError(f"A dropout of {self.dropout} is not possible: it must be at least 0 and below 1.")

    @property
    def scale(self) -> float:
        """alpha / r."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Adapters(nn.Module):
    """The matrices of all changed layers. While they are there, ``transformer`` computes with them.

    The transformer's own parameters no longer want gradients. Raises RunError if a target is no layer of it.
    """

    def __init__(self, transformer: VideoTransformer, config: LoRAConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.names = chosen_layers(transformer, config.targets)
        transformer.requires_grad_(False)
        device = next(transformer.parameters()).device
        for number, name in enumerate(self.names):
            layer = transformer.get_submodule(name)
            assert isinstance(layer, nn.Linear | FrozenLinear)
            generator = derived_generator(seed, "lora", name)
            change = Change(layer.in_features, layer.out_features, config, number, generator).to(device)
            self.add_module(_module_name(name), change)
            _hang_on(layer, change)

    def set_dropout_seed(self, seed: int) -> None:
        """What the next forward pass leaves out; the same again when it is computed anew for the backward pass."""
        for change in self.changes():
            change.seed = seed

    def changes(self) -> list["Change"]:
        """The trained layers, in the order of ``names``."""
        return [self.get_submodule(_module_name(name)) for name in self.names]  # pyright: ignore[reportReturnType]

    def as_lora(self, name: str = "trained") -> LoRA:
        """What the matrices are now, as ``models.lora`` merges and ``checkpoints.lora`` saves it."""
        layers = {
            layer: LowRank(change.lora_A.detach().clone(), change.lora_B.detach().clone(), self.config.scale)
            for layer, change in zip(self.names, self.changes(), strict=True)
        }
        return LoRA(name=name, layers=layers)


class Change(nn.Module):
    """B A x of one layer."""

    def __init__(self, inputs: int, outputs: int, config: LoRAConfig, number: int, generator: torch.Generator) -> None:
        super().__init__()
        self.scale, self.dropout, self.number, self.seed = config.scale, config.dropout, number, 0
        bound = 1 / math.sqrt(inputs)
        self.lora_A = nn.Parameter((2 * torch.rand(config.rank, inputs, generator=generator) - 1) * bound)
        self.lora_B = nn.Parameter(torch.zeros(outputs, config.rank))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.dropout:
            # A generator of its own: a block that is computed again for its backward pass drops the same
            generator = torch.Generator(x.device).manual_seed(derived_seed(self.seed, self.number))
            kept = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=generator)
            x = x * kept / (1 - self.dropout)
        return self.scale * F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))


def chosen_layers(transformer: VideoTransformer, targets: Sequence[str]) -> list[str]:
    """The linear layers whose names end with one of ``targets``; RunError for a target that is none."""
    names = [name for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear | FrozenLinear)]
    found = {target: [name for name in names if _ends_with(name, target)] for target in targets}
    unknown = [target for target, matching in found.items() if not matching]
    if unknown:
        kinds = sorted({name.split(".", 2)[2] for name in names if name.startswith("transformer_blocks.")})
        raise RunError(
            f"No linear layer of this transformer ends with {', '.join(unknown)}. Those of its blocks are: "
            f"{', '.join(kinds)}."
        )
    chosen = {name for matching in found.values() for name in matching}
    return [name for name in names if name in chosen]


def _ends_with(name: str, target: str) -> bool:
    return any(f".{spelling}".endswith(f".{target}") for spelling in (name, TRANSFORMER_TABLE.rename(name)))


def _hang_on(layer: nn.Linear | FrozenLinear, change: Change) -> None:
    """Let the layer's output, before its activation, be changed; the activation moves into the hook."""
    activation: Activation = "none"
    if isinstance(layer, Linear | FrozenLinear):
        activation, layer.activation = layer.activation, "none"

    def changed(_layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        y = y + change(*inputs)
        return gelu(y) if activation == "gelu" else y

    layer.register_forward_hook(changed)


def _module_name(layer: str) -> str:
    return layer.replace(".", "-")
