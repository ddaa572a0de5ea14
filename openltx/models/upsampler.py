"""The latent upsampler: latents of twice the size, in space, in time, or in both. (Released with 0.9.7 and 0.9.8.)

    z (b c f h w)  ->  conv, norm, SiLU  ->  residual blocks  ->  conv, pixel shuffle  ->  residual blocks  ->  conv

    space   f h w  ->  f, 2h, 2w         every frame by itself, in 2D
    time    f h w  ->  2f - 1, h, w      the first frame of the doubled ones goes, as in the VAE's decoder
    both    f h w  ->  2f - 1, 2h, 2w

It works on *un-normalised* latents (``VideoAutoencoder.unnormalise``), unlike everything else outside the VAE. Nothing
in it is causal, and its norms look at the whole video. Attribute names are the tensor names of the released files.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn

from openltx.errors import CheckpointError
from openltx.geometry import LatentShape
from openltx.kernels.volume import to_fast_layout

NORM_GROUPS = 32
Conv = type[nn.Conv2d] | type[nn.Conv3d]


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig:
    """Architecture of a latent upsampler, under the names of the released configs; the defaults are the spatial one.

    in_channels           channels of the latents
    mid_channels          width of the network, a multiple of 32
    num_blocks_per_stage  residual blocks before and after the enlargement
    dims                  3: convolutions see neighbouring frames; 2: every frame by itself (space only)
    spatial_upsample      twice the height and width
    temporal_upsample     2f - 1 latent frames
    """

    in_channels: int = 128
    mid_channels: int = 512
    num_blocks_per_stage: int = 4
    dims: int = 3
    spatial_upsample: bool = True
    temporal_upsample: bool = False

    def __post_init__(self) -> None:
        if not (self.spatial_upsample or self.temporal_upsample):
            raise CheckpointError("An upsampler enlarges space or time; the config says neither.")
        if self.dims not in (2, 3) or (self.dims == 2 and self.temporal_upsample):
            raise CheckpointError(
                f"An upsampler with dims={self.dims} and temporal_upsample={self.temporal_upsample} is not possible: "
                "dims is 3, or 2 for one that enlarges space only."
            )
        if self.mid_channels < 1 or self.mid_channels % NORM_GROUPS:
            raise CheckpointError(
                f"An upsampler with mid_channels={self.mid_channels} is not possible: it must be a multiple of "
                f"{NORM_GROUPS}, the groups of its norms."
            )

    @property
    def enlarges(self) -> Literal["space", "time", "space and time"]:
        """What is doubled."""
        if not self.temporal_upsample:
            return "space"
        return "space and time" if self.spatial_upsample else "time"

    def enlarged(self, shape: LatentShape) -> LatentShape:
        """The latent grid that comes out for one of ``shape``."""
        side = 2 if self.spatial_upsample else 1
        return LatentShape(
            frames=2 * shape.frames - 1 if self.temporal_upsample else shape.frames,
            height=side * shape.height,
            width=side * shape.width,
        )


class LatentUpsampler(nn.Module):
    """Un-normalised latents to larger ones."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        conv = nn.Conv2d if config.dims == 2 else nn.Conv3d
        width, blocks = config.mid_channels, range(config.num_blocks_per_stage)
        self.initial_conv = conv(config.in_channels, width, 3, padding=1)
        self.initial_norm = nn.GroupNorm(NORM_GROUPS, width)
        self.res_blocks = nn.ModuleList(UpsamplerBlock(width, conv) for _ in blocks)
        self.upsampler = _enlargement(config)
        self.post_upsample_res_blocks = nn.ModuleList(UpsamplerBlock(width, conv) for _ in blocks)
        self.final_conv = conv(width, config.in_channels, 3, padding=1)

    def forward(self, z: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f2 h2 w2"]:
        if self.config.dims == 2:
            frames = rearrange(z, "b c f h w -> (b f) c h w")
            return rearrange(self._run(frames), "(b f) c h w -> b c f h w", b=len(z))
        return self._run(to_fast_layout(z))

    def _run(self, z: Tensor) -> Tensor:
        x = F.silu(self.initial_norm(self.initial_conv(z)))
        for block in self.res_blocks:
            x = block(x)
        x = self._enlarge(x)
        for block in self.post_upsample_res_blocks:
            x = block(x)
        return self.final_conv(x)

    def _enlarge(self, x: Tensor) -> Tensor:
        if self.config.temporal_upsample:
            return to_fast_layout(self.upsampler(x)[:, :, 1:])
        if self.config.dims == 2:
            return self.upsampler(x)
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        return to_fast_layout(rearrange(self.upsampler(frames), "(b f) c h w -> b c f h w", b=len(x)))


class UpsamplerBlock(nn.Module):
    """conv, norm, SiLU, conv, norm; the input is added before the last SiLU."""

    def __init__(self, width: int, conv: Conv) -> None:
        super().__init__()
        self.conv1 = conv(width, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(NORM_GROUPS, width)
        self.conv2 = conv(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, width)

    def forward(self, x: Float[Tensor, "b d *grid"]) -> Float[Tensor, "b d *grid"]:
        y = F.silu(self.norm1(self.conv1(x)))
        return F.silu(self.norm2(self.conv2(y)) + x)


def _enlargement(config: UpsamplerConfig) -> nn.Sequential:
    """A convolution to 2, 4 or 8 times the channels, which then become frames, rows and columns."""
    width = config.mid_channels
    match config.enlarges:
        case "space":
            conv = nn.Conv2d(width, 4 * width, 3, padding=1)
            return nn.Sequential(conv, Rearrange("b (d p q) h w -> b d (h p) (w q)", p=2, q=2))
        case "time":
            conv = nn.Conv3d(width, 2 * width, 3, padding=1)
            return nn.Sequential(conv, Rearrange("b (d o) f h w -> b d (f o) h w", o=2))
        case "space and time":
            conv = nn.Conv3d(width, 8 * width, 3, padding=1)
            return nn.Sequential(conv, Rearrange("b (d o p q) f h w -> b d (f o) (h p) (w q)", o=2, p=2, q=2))
