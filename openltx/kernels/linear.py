"""Linear layers that take oneDNN's matrix product on a CPU.

torch sends float32 linear layers to MKL, which reaches 65 to 75% of oneDNN's rate on AMD processors, and runs an
activation as a pass of its own. oneDNN takes both types, with the activation fused. Used where no gradient is wanted.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openltx.kernels.fused import gelu

Activation = Literal["none", "gelu"]


class Linear(nn.Linear):
    """``nn.Linear``, followed by the tanh form of GELU with ``activation="gelu"``."""

    def __init__(self, in_features: int, out_features: int, *, activation: Activation = "none") -> None:
        super().__init__(in_features, out_features)
        self.activation: Activation = activation

    def forward(self, input: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows d"]:
        if _onednn(input, self.weight):
            algorithm = "tanh" if self.activation == "gelu" else ""
            return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, self.activation, [], algorithm)
        y = F.linear(input, self.weight, self.bias)
        return gelu(y) if self.activation == "gelu" else y


def _onednn(x: Tensor, weight: Tensor) -> bool:
    if not x.is_cpu or torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if type(x) is not Tensor or type(weight) is not nn.Parameter or x.dtype != weight.dtype or not _AVAILABLE:
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and _fast_bfloat16())


def _fast_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


_AVAILABLE = torch.backends.mkldnn.is_available()
