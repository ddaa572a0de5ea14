"""How both networks see the time t: DDPM's sinusoid and a two-layer network, under the released tensors' names."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SINUSOID_CHANNELS = 256


class TimestepEmbedder(nn.Module):
    """Linear, SiLU, Linear on the sinusoid of t (already scaled, by 1000 in every release)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(SINUSOID_CHANNELS, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape channels"]:
        features = sinusoid(t).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(features)))


def sinusoid(t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 256"]:
    """[cos(t f_i), sin(t f_i)] with f_i = 10000^(-i/128), in float32."""
    half = SINUSOID_CHANNELS // 2
    frequency = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t.float()[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)
