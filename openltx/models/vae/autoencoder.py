"""The Video-VAE: a causal encoder and a decoder that also does the last denoising step. (Paper section 2.1.)

    encoder   b 3 F H W in [-1, 1]  ->  b c f h w      F = 8 (f - 1) + 1,  H = 32 h,  W = 32 w
    decoder   D((1 - t) z + t eps, t)  ->  pixels       trained for t in [0, 0.2] (2.1.1)

Patches of 4 x 4 pixels become channels before the first convolution: the compression sits in front of the VAE, where
redundancy can be removed, and not in front of the transformer (section 2). One table of ``Block`` describes encoder
and decoder of every release; a decoder's table is listed from its output side and built in reverse, as the released
files do. Latents outside this module are always normalised with the per-channel statistics.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openltx.errors import RequestError
from openltx.flow.path import interpolate
from openltx.kernels.volume import norm_activate, to_fast_layout
from openltx.models.vae.layers import (
    CausalConv3d,
    DepthToSpace,
    NoiseMaps,
    ResBlock,
    ResGroup,
    SpaceToDepth,
    SpatialPadding,
    TimeEmbedder,
)
from openltx.noise import Generators, randn

BlockKind = Literal[
    "res_x", "res_x_y",
    "compress_time", "compress_space", "compress_all", "compress_all_x_y",
    "compress_time_res", "compress_space_res", "compress_all_res",
]  # fmt: skip
LogVariance = Literal["uniform", "per_channel", "constant", "none"]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Block:
    """One entry of a block table, under the released configs' names.

    kind          res_x: a group of residual blocks; res_x_y: one that changes width;
                  compress_{time,space,all}: a factor of two, down in the encoder and up in the decoder
                  (``_res``: residual space-to-depth; ``_x_y``: strided and wider)
    num_layers    residual blocks in a ``res_x``
    multiplier    width factor: up in the encoder, down in the decoder
    residual      decoder ``compress_all`` with a skip connection
    inject_noise  noise after each convolution of a decoder ``res_x`` (paper 2.1.3)
    """

    kind: BlockKind
    num_layers: int = 1
    multiplier: int = 1
    residual: bool = False
    inject_noise: bool = False


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Architecture of a Video-VAE. ``decoder_blocks`` are listed from the output side, as in the released configs."""

    encoder_blocks: tuple[Block, ...]
    decoder_blocks: tuple[Block, ...]
    timestep_conditioning: bool
    latent_channels: int = 128
    patch_size: int = 4
    encoder_base_channels: int = 128
    decoder_base_channels: int = 128
    causal_encoder: bool = True  # the releases' and the paper's choice; False is for comparison (2.1.6)
    causal_decoder: bool = False
    latent_log_var: LogVariance = "uniform"
    spatial_padding: SpatialPadding = "zeros"

    @property
    def compression(self) -> tuple[int, int]:
        """(time, space) factors of the encoder."""
        time = math.prod(_STRIDES[b.kind][0] for b in self.encoder_blocks if b.kind in _STRIDES)
        space = math.prod(_STRIDES[b.kind][1] for b in self.encoder_blocks if b.kind in _STRIDES)
        return time, space * self.patch_size


class Posterior(NamedTuple):
    """The encoder's Gaussian over un-normalised latents."""

    mean: Tensor
    log_variance: Tensor


class VideoAutoencoder(nn.Module):
    """Encoder, denoising decoder and per-channel latent statistics.

    ``before_use``, if set, is called with the encoder or the decoder before it computes, and sees that its weights are
    there.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.before_use: Callable[[nn.Module], None] | None = None
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.per_channel_statistics = ChannelStatistics(config.latent_channels)

    def encode(
        self, video: Float[Tensor, "b 3 F H W"], generator: Generators = None
    ) -> Float[Tensor, "b {self.config.latent_channels} f h w"]:
        """Normalised latents of a video in [-1, 1]: the posterior's mean, or a sample if a generator is given."""
        mean, log_variance = self.ready(self.encoder)(video)
        if generator is not None:
            mean = mean + (0.5 * log_variance).exp() * randn(
                mean.shape, generator, device=mean.device, dtype=mean.dtype
            )
        return self.normalise(mean)

    def decode(
        self,
        latents: Float[Tensor, "b c f h w"],
        t: float | Float[Tensor, "b"] | None = None,
        noise_scale: float | Float[Tensor, "b"] | None = None,
        tone_map: float = 0.0,
        generator: Generators = None,
    ) -> Float[Tensor, "b 3 8*f-7 32*h 32*w"]:
        """Pixels in about [-1, 1] (not clamped) from normalised latents at noise level ``t``: the last denoising step.

        Fresh noise is mixed in first, (1 - s) z + s eps with s = ``noise_scale``; None means s = t, 0.0 means that the
        latents are at level t already (the sampler's z_t1). ``tone_map`` in [0, 1] compresses large latents.
        ``t=None`` is t = 0 without noise. A VAE without timestep conditioning (0.9.0) takes no ``t``.
        """
        z, level = self.decoder_input(latents, t, noise_scale, tone_map, generator)
        return self.ready(self.decoder)(z, level, generator)

    def ready(self, network: Network) -> Network:
        """The encoder or the decoder, with its weights."""
        if self.before_use is not None:
            self.before_use(network)
        return network

    def decoder_input(
        self,
        latents: Float[Tensor, "b c f h w"],
        t: float | Float[Tensor, "b"] | None,
        noise_scale: float | Float[Tensor, "b"] | None,
        tone_map: float,
        generator: Generators,
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b"] | None]:
        """What ``decode`` hands to the decoder: latents with noise mixed in, tone-mapped, un-normalised; and t."""
        if t is not None and not self.config.timestep_conditioning:
            raise RequestError(
                f"This VAE's decoder is not conditioned on a timestep, but t={t} was asked for. Leave the decode "
                "timestep out (None) for VAE 0.9.0."
            )
        batch, device, dtype = latents.shape[0], latents.device, latents.dtype
        level = torch.as_tensor(0.0 if t is None else t, device=device, dtype=torch.float32).expand(batch)
        scale = level if noise_scale is None else torch.as_tensor(noise_scale, device=device).expand(batch)
        if t is not None and not (isinstance(noise_scale, float | int) and noise_scale == 0):
            latents = interpolate(latents, randn(latents.shape, generator, device=device, dtype=dtype), scale)
        if tone_map:
            latents = tone_map_latents(latents, tone_map)
        return self.unnormalise(latents), level if self.config.timestep_conditioning else None

    def normalise(self, z: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """The encoder's latents to mean 0 and standard deviation 1 per channel."""
        mean, std = self.per_channel_statistics.broadcast(z.dtype)
        return (z - mean) / std

    def unnormalise(self, z: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """The inverse of ``normalise``."""
        mean, std = self.per_channel_statistics.broadcast(z.dtype)
        return z * std + mean


class ChannelStatistics(nn.Module):
    """Mean and standard deviation of each latent channel over the training data."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean-of-means", torch.zeros(channels))
        self.register_buffer("std-of-means", torch.ones(channels))

    @property
    def mean(self) -> Float[Tensor, "c"]:
        return self.get_buffer("mean-of-means")

    @property
    def std(self) -> Float[Tensor, "c"]:
        return self.get_buffer("std-of-means")

    def broadcast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Both as (c 1 1 1)."""
        return self.mean.to(dtype)[:, None, None, None], self.std.to(dtype)[:, None, None, None]


class Encoder(nn.Module):
    """Pixels to the posterior over un-normalised latents; causal, so the first frame is encoded alone."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels, causal = config.encoder_base_channels, config.causal_encoder
        self.recompute = False  # trade time for memory in training: see recompute_blocks
        self.conv_in = CausalConv3d(3 * config.patch_size**2, channels, causal=causal, padding=config.spatial_padding)
        blocks = []
        for block in config.encoder_blocks:
            module, channels = _encoder_block(block, channels, config)
            blocks.append(module)
        self.down_blocks = nn.ModuleList(blocks)
        extra = {"uniform": 1, "per_channel": config.latent_channels, "constant": 0, "none": 0}[config.latent_log_var]
        self.conv_out = CausalConv3d(
            channels, config.latent_channels + extra, causal=causal, padding=config.spatial_padding
        )

    def forward(self, video: Float[Tensor, "b 3 F H W"]) -> Posterior:
        """Mean and log-variance, both (b c f h w)."""
        x = self.conv_in(to_fast_layout(patchify_pixels(video, self.config.patch_size)))
        for block in self.down_blocks:
            run = _recomputed if self.recompute and torch.is_grad_enabled() else _through
            x = run(block, x)
        return self.posterior(self.conv_out.inner(norm_activate(x, edges=self.conv_out.edges(x))))

    def posterior(self, x: Float[Tensor, "b d f h w"]) -> Posterior:
        """The last convolution's channels as mean and log-variance."""
        mean, rest = x[:, : self.config.latent_channels], x[:, self.config.latent_channels :]
        match self.config.latent_log_var:
            case "uniform":  # one log-variance for all channels: none can be given up to the prior (2.1.4)
                return Posterior(mean, rest.expand_as(mean))
            case "per_channel":
                return Posterior(mean, rest)
            case _:
                return Posterior(mean, torch.full_like(mean, -30.0))


class Decoder(nn.Module):
    """Un-normalised latents at noise level t to pixels."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        causal, padding = config.causal_decoder, config.spatial_padding
        channels = config.decoder_base_channels * math.prod(_width_factor(b) for b in config.decoder_blocks)
        self.conv_in = CausalConv3d(config.latent_channels, channels, causal=causal, padding=padding)
        blocks = []
        for block in reversed(config.decoder_blocks):
            module, channels = _decoder_block(block, channels, config)
            blocks.append(module)
        self.up_blocks = nn.ModuleList(blocks)
        self.conv_out = CausalConv3d(channels, 3 * config.patch_size**2, causal=causal, padding=padding)
        if config.timestep_conditioning:
            self.timestep_scale_multiplier = nn.Parameter(torch.tensor(1000.0))
            self.last_time_embedder = TimeEmbedder(2 * channels)
            self.last_scale_shift_table = nn.Parameter(torch.randn(2, channels) / channels**0.5)

    def forward(
        self, z: Float[Tensor, "b c f h w"], t: Float[Tensor, "b"] | None = None, generator: Generators = None
    ) -> Float[Tensor, "b 3 F H W"]:
        """Pixels; ``generator`` feeds the injected noise of decoders that have it."""

        def noise(height: int, width: int) -> Tensor:
            return randn((z.shape[0], 1, 1, height, width), generator, device=z.device, dtype=z.dtype)

        scaled = None if t is None else t * self.timestep_scale_multiplier
        x = self.conv_in(to_fast_layout(z))
        for block in self.up_blocks:
            run = _recomputed if self.recompute and torch.is_grad_enabled() else _through
            x = run(block, x, scaled, noise)
        shift, scale = self.last_modulation(scaled)
        x = self.conv_out.inner(norm_activate(x, shift, scale, self.conv_out.edges(x)))
        return unpatchify_pixels(x, self.config.patch_size)

    def last_modulation(self, t: Float[Tensor, "b"] | None) -> tuple[Tensor | None, Tensor | None]:
        """(shift, scale) of the last norm, each (b c), at the scaled t."""
        if t is None:
            return None, None
        embedding = rearrange(self.last_time_embedder(t), "b (two c) -> b two c", two=2)
        shift, scale = (self.last_scale_shift_table + embedding).unbind(1)
        return shift, scale


def recompute_blocks(vae: VideoAutoencoder, wanted: bool = True) -> None:
    """Gradient checkpointing: keep only what passes between blocks, and run each block again in the backward pass."""
    vae.encoder.recompute = vae.decoder.recompute = wanted


def patchify_pixels(video: Float[Tensor, "b c F H W"], size: int) -> Float[Tensor, "b d F h w"]:
    """Patches of size x size to channels, the column within a patch outside the row, as released."""
    return rearrange(video, "b c f (h q) (w r) -> b (c r q) f h w", q=size, r=size)


def unpatchify_pixels(x: Float[Tensor, "b d F h w"], size: int) -> Float[Tensor, "b c F H W"]:
    """The inverse of ``patchify_pixels``."""
    return rearrange(x, "b (c r q) f h w -> b c f (h q) (w r)", q=size, r=size)


def tone_map_latents(z: Float[Tensor, "*shape"], compression: float) -> Float[Tensor, "*shape"]:
    """Pull latents of large magnitude in; ``compression`` in [0, 1], 0 changes nothing."""
    k = 0.75 * compression
    return z * (1 - 0.8 * k * torch.sigmoid(4 * k * (z.abs() - 1)))


_STRIDES: dict[str, tuple[int, int, int]] = {
    "compress_time": (2, 1, 1),
    "compress_space": (1, 2, 2),
    "compress_all": (2, 2, 2),
    "compress_all_x_y": (2, 2, 2),
    "compress_time_res": (2, 1, 1),
    "compress_space_res": (1, 2, 2),
    "compress_all_res": (2, 2, 2),
}


def _encoder_block(block: Block, channels: int, config: VAEConfig) -> tuple[nn.Module, int]:
    """The module of an encoder entry, and the width behind it."""
    causal, padding = config.causal_encoder, config.spatial_padding
    wider = channels * block.multiplier
    match block.kind:
        case "res_x":
            return ResGroup(channels, block.num_layers, causal=causal, padding=padding), channels
        case "res_x_y":
            return ResBlock(channels, wider, causal=causal, padding=padding), wider
        case "compress_time_res" | "compress_space_res" | "compress_all_res":
            return SpaceToDepth(channels, wider, _STRIDES[block.kind], causal=causal, padding=padding), wider
        case "compress_all_x_y":
            return CausalConv3d(channels, wider, causal=causal, padding=padding, stride=(2, 2, 2)), wider
        case _:
            stride = _STRIDES[block.kind]
            return CausalConv3d(channels, channels, causal=causal, padding=padding, stride=stride), channels


def _decoder_block(block: Block, channels: int, config: VAEConfig) -> tuple[nn.Module, int]:
    """The module of a decoder entry, and the width behind it."""
    causal, padding = config.causal_decoder, config.spatial_padding
    narrower = channels // _width_factor(block)
    match block.kind:
        case "res_x":
            group = ResGroup(
                channels,
                block.num_layers,
                causal=causal,
                padding=padding,
                timestep_conditioning=config.timestep_conditioning,
                inject_noise=block.inject_noise,
            )
            return group, channels
        case "res_x_y":
            return ResBlock(
                channels, narrower, causal=causal, padding=padding, inject_noise=block.inject_noise
            ), narrower
        case "compress_time" | "compress_space" | "compress_all":
            module = DepthToSpace(
                channels,
                _STRIDES[block.kind],
                multiplier=_width_factor(block),
                residual=block.residual,
                causal=causal,
                padding=padding,
            )
            return module, narrower
        case _:
            raise ValueError(f"{block.kind} is an encoder block, not a decoder block")


def _width_factor(block: Block) -> int:
    """By what a decoder block divides the width."""
    return block.multiplier if block.kind in ("res_x_y", "compress_all") else 1


def _through(block: nn.Module, x: Tensor, t: Tensor | None = None, noise: NoiseMaps | None = None) -> Tensor:
    match block:
        case ResGroup():
            return block(x, t, noise)
        case ResBlock():
            return block(x, None, noise)
        case _:
            return block(x)


def _recomputed(block: nn.Module, x: Tensor, t: Tensor | None = None, noise: NoiseMaps | None = None) -> Tensor:
    """A block whose inner values are not kept for the backward pass but computed again in it, with the same noise."""
    drawn: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        former = iter(tuple(drawn))

        def again(height: int, width: int) -> Tensor:
            if (known := next(former, None)) is not None:
                return known
            assert noise is not None
            drawn.append(noise(height, width))
            return drawn[-1]

        return _through(block, x, t, again)

    result = checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(result, Tensor)
    return result
