"""Linear layers whose weights are stored in eight bits and never trained: the base under a LoRA.

    int8     w ~ s w_q,  w_q in -127 .. 127     s = max |w| / 127 for each output channel
    float8   w ~ s w_q,  w_q in e4m3            s = max |w| / 448

A quarter of float32 in memory. The weight is converted when it is used, forwards and again backwards, in whatever type
the input has; so the gradient of the input is exact for the stored weight, on every device. (``models.int8`` computes
in eight bits as well, for sampling; it has no gradient.)
"""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from openltx.kernels.fused import gelu
from openltx.kernels.linear import Activation, Linear
from openltx.models.transformer import VideoTransformer

EightBits = Literal["int8", "float8"]
_STORED: dict[EightBits, tuple[torch.dtype, float]] = {
    "int8": (torch.int8, 127.0),
    "float8": (torch.float8_e4m3fn, 448.0),
}


class FrozenLinear(nn.Module):
    """A linear layer with a frozen weight of eight bits, and its activation."""

    def __init__(self, layer: nn.Linear, kind: EightBits) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.weight.shape
        self.activation: Activation = layer.activation if isinstance(layer, Linear) else "none"
        dtype, largest = _STORED[kind]
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / largest
        stored = weight / scale
        self.register_buffer("weight", (stored.round() if kind == "int8" else stored).to(dtype))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows d"]:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        y = cast("Tensor", _Product.apply(x, self.get_buffer("weight"), self.get_buffer("scale"), self.bias))
        return gelu(y) if self.activation == "gelu" else y


class _Product(torch.autograd.Function):
    """x w^T + bias, keeping the eight bits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, _dequantised(weight, scale, x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale = ctx.saved_tensors
        return dy @ _dequantised(weight, scale, dy.dtype), None, None, None


def freeze_in_eight_bits(transformer: VideoTransformer, kind: EightBits) -> None:
    """Replace the linear layers of the blocks, in place; the few outside of them stay as they are."""
    layers = [(n, m) for n, m in transformer.named_modules() if n.startswith("transformer_blocks.")]
    for name, layer in layers:
        if isinstance(layer, nn.Linear):
            parent, _, last = name.rpartition(".")
            setattr(transformer.get_submodule(parent), last, FrozenLinear(layer, kind))


def _dequantised(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight.float() * scale).to(dtype)
