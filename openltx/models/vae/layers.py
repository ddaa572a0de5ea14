"""The parts of the Video-VAE: causal convolution, PixelNorm, residual blocks, and the changes of resolution.

Shapes are ``b c f h w`` throughout, on whatever grid the layer works. Attribute names are the tensor names of the
released files. Source: LTX-Video paper sections 2.1.1 (timestep conditioning), 2.1.3 (noise injection), 2.1.6.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from openltx.kernels.volume import (
    Stride,
    convolve,
    depth_to_space,
    norm_activate,
    repeat_edges,
    space_to_depth,
    to_fast_layout,
)
from openltx.models.timestep import TimestepEmbedder

SpatialPadding = Literal["zeros", "replicate", "reflect"]
NoiseMaps = Callable[[int, int], Tensor]
"""Draws one standard normal map per sample, (b 1 1 h w), for noise injection."""


class CausalConv3d(nn.Module):
    """3 x 3 x 3 convolution whose time padding repeats edge frames.

    Causal: the first frame stands twice before the clip, so that no output sees a later frame and a single frame is
    a valid clip. Not causal (the decoder): the first and the last frame are repeated once each.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        causal: bool,
        padding: SpatialPadding = "zeros",
        stride: Stride = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.causal = causal
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=(0, 1, 1), padding_mode=padding)

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d f2 h2 w2"]:
        return self.inner(repeat_edges(x, self.edges(x)))

    def edges(self, x: Float[Tensor, "b c f h w"]) -> tuple[int, int]:
        """How often the first and the last frame are to be repeated before ``inner``."""
        if x.shape[2] == 1 and self.conv.padding_mode == "zeros":
            return 0, 0
        return (2, 0) if self.causal else (1, 1)

    def inner(
        self, x: Float[Tensor, "b c f h w"], add: Float[Tensor, "b d f2 h2 w2"] | None = None
    ) -> Float[Tensor, "b d f2 h2 w2"]:
        """The convolution of a clip whose edge frames are repeated already, plus ``add``."""
        if x.shape[2] > 1:
            return convolve(x, self.conv, add)
        # a single frame meets itself in all three time taps: a 2D convolution with their sum
        kernel = self.conv.weight.sum(2)
        y = F.conv2d(x[:, :, 0], kernel, self.conv.bias, stride=self.conv.stride[1:], padding=1)[:, :, None]
        return to_fast_layout(y if add is None else y + add)


class TimeEmbedder(nn.Module):
    """The decoder's view of t."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedder(out_channels)

    def forward(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b d"]:
        return self.timestep_embedder(t)


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channel axis, with weight and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ResBlock(nn.Module):
    """norm, (modulate,) SiLU, conv, (noise,) twice, plus the input.

    With timestep conditioning a table and the group's time embedding give (shift, scale) for both norms; with noise
    injection a per-channel learned multiple of one noise map per sample is added after each convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        causal: bool,
        padding: SpatialPadding,
        timestep_conditioning: bool = False,
        inject_noise: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(in_channels, out_channels, causal=causal, padding=padding)
        self.conv2 = CausalConv3d(out_channels, out_channels, causal=causal, padding=padding)
        self.conv_shortcut = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.norm3 = ChannelLayerNorm(in_channels) if in_channels != out_channels else None
        self.scale_shift_table = (
            nn.Parameter(torch.randn(4, in_channels) / in_channels**0.5) if timestep_conditioning else None
        )
        self.per_channel_scale1 = nn.Parameter(torch.zeros(in_channels, 1, 1)) if inject_noise else None
        self.per_channel_scale2 = nn.Parameter(torch.zeros(in_channels, 1, 1)) if inject_noise else None

    def forward(
        self, x: Float[Tensor, "b c f h w"], embedding: Tensor | None = None, noise: NoiseMaps | None = None
    ) -> Float[Tensor, "b d f h w"]:
        (shift1, scale1), (shift2, scale2) = self.modulations(embedding)
        y = self.conv1.inner(norm_activate(x, shift1, scale1, self.conv1.edges(x)))
        y = add_noise(y, self.per_channel_scale1, noise)
        y = norm_activate(y, shift2, scale2, self.conv2.edges(y))
        return add_noise(self.conv2.inner(y, add=self.shortcut(x)), self.per_channel_scale2, noise)

    def modulations(self, embedding: Tensor | None) -> tuple[tuple[Tensor | None, Tensor | None], ...]:
        """(shift, scale) of the first and of the second norm, each (b c)."""
        if self.scale_shift_table is None:
            return (None, None), (None, None)
        assert embedding is not None
        table = self.scale_shift_table + rearrange(embedding, "b (four c) -> b four c", four=4)
        shift1, scale1, shift2, scale2 = table.unbind(1)
        return (shift1, scale1), (shift2, scale2)

    def shortcut(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d f h w"]:
        """What the branch is added to."""
        if self.conv_shortcut is None or self.norm3 is None:
            return x
        return to_fast_layout(self.conv_shortcut(self.norm3(x)))


def add_noise(x: Tensor, scale: Tensor | None, noise: NoiseMaps | None) -> Tensor:
    """x plus one noise map per sample times a learned factor per channel (paper 2.1.3)."""
    if scale is None:
        return x
    assert noise is not None
    return x + noise(*x.shape[-2:]).to(x.dtype) * scale[:, None].to(x.dtype)


class ResGroup(nn.Module):
    """``res_x``: residual blocks of one width that share a time embedding."""

    def __init__(
        self,
        channels: int,
        num_layers: int,
        *,
        causal: bool,
        padding: SpatialPadding,
        timestep_conditioning: bool = False,
        inject_noise: bool = False,
    ) -> None:
        super().__init__()
        self.time_embedder = TimeEmbedder(4 * channels) if timestep_conditioning else None
        self.res_blocks = nn.ModuleList(
            ResBlock(
                channels,
                channels,
                causal=causal,
                padding=padding,
                timestep_conditioning=timestep_conditioning,
                inject_noise=inject_noise,
            )
            for _ in range(num_layers)
        )

    def forward(
        self, x: Float[Tensor, "b c f h w"], t: Tensor | None = None, noise: NoiseMaps | None = None
    ) -> Float[Tensor, "b c f h w"]:
        embedding = self.time_embedder(t) if self.time_embedder is not None else None
        for block in self.res_blocks:
            x = block(x, embedding, noise)
        return x


class SpaceToDepth(nn.Module):
    """Residual downsampling: (conv, then space-to-depth) + (space-to-depth, then mean over channel groups)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: Stride, *, causal: bool, padding: SpatialPadding
    ) -> None:
        super().__init__()
        self.stride = stride
        self.group = in_channels * math.prod(stride) // out_channels
        self.conv = CausalConv3d(in_channels, out_channels // math.prod(stride), causal=causal, padding=padding)

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d f2 h2 w2"]:
        if self.stride[0] == 2:
            x = torch.cat([x[:, :, :1], x], 2)
        y = space_to_depth(self.conv(x), self.stride)
        return (y + self.shortcut(x)).to(torch.result_type(y, x))

    def shortcut(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d f2 h2 w2"]:
        """The input itself, averaged over groups of channels, not in bfloat16; its first frame stands twice already."""
        groups = rearrange(space_to_depth(x, self.stride), "b (c g) f h w -> b c g f h w", g=self.group)
        return groups.mean(2, dtype=torch.promote_types(x.dtype, torch.float32))


class DepthToSpace(nn.Module):
    """Upsampling by a convolution and a 3D pixel shuffle; the first output frame goes if time is doubled.

    ``multiplier`` divides the channels; with ``residual`` the shuffled input, repeated to the output's width, is added.
    """

    def __init__(
        self,
        in_channels: int,
        stride: Stride,
        *,
        multiplier: int,
        residual: bool,
        causal: bool,
        padding: SpatialPadding,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.residual = residual
        width = math.prod(stride) * in_channels // multiplier
        self.conv = CausalConv3d(in_channels, width, causal=causal, padding=padding)

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d f2 h2 w2"]:
        drop = 1 if self.stride[0] == 2 else 0
        return depth_to_space(self.conv(x), self.stride, x if self.residual else None, drop)
