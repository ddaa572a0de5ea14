"""The networks of the paper's Table 1: published settings, where they are from, and how to build each on any device.

LTX-Video is built from this project's modules, HunyuanVideo and CogVideoX from diffusers'. Pyramid Flow's transformer
is Stable Diffusion 3's with other settings and rotary positions in time, which have no weights: diffusers' class of
that is it. Of Movie Gen nothing is released, so ``MovieGenBlock`` follows its report; what stands around its blocks
(embeddings of text and time) is left out. The VAEs of Movie Gen and Pyramid Flow are in no library: theirs are the
numbers that they publish.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

Attention = Literal["self + cross", "self (joint)"]
Inputs = Callable[[int, int, int], tuple[Any, ...]]
"""(tokens, text tokens, width) -> what a block is called with, on torch's default device and in its default dtype."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A column of the paper's Table 1. ``parameters`` in billions; VAE factors are (space, time)."""

    parameters: float
    width: int
    blocks: int
    vae: tuple[int, int]
    channels: int
    compression: int
    patch: tuple[int, int, int]
    pixels_per_token: int
    attention: Attention


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Blocks of one kind: the list of the transformer that holds them, and what they are called with."""

    attribute: str
    inputs: Inputs


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One network.

    transformer   builds it whole, on torch's default device
    patch         (time, height, width) of latent cells in a token
    latent        builds the VAE and gives the latents of a (1 3 F H W) video; or its published (space, time, channels)
    """

    name: str
    source: str
    paper: Published
    transformer: Callable[[], nn.Module]
    patch: tuple[int, int, int]
    latent: Callable[[Tensor], Tensor] | tuple[int, int, int]
    blocks: Sequence[Blocks]


class MovieGenBlock(nn.Module):
    """A block as Movie Gen's report has it.

    Llama 3's without grouped queries and attending both ways, with cross-attention between self-attention and
    feed-forward, and norms modulated by the time.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn1 = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(4)])
        self.attn2 = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(4)])
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.norms = nn.ModuleList([nn.RMSNorm(width) for _ in range(3)])

    def forward(
        self, h: Float[Tensor, "b n d"], modulation: Float[Tensor, "b 6 d"], text: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b n d"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation[:, :, None].unbind(1)
        x = self.norms[0](h) * (1 + scale1) + shift1
        h = h + gate1 * self._attend(self.attn1, x, x)
        h = h + self._attend(self.attn2, self.norms[1](h), text)
        x = self.norms[2](h) * (1 + scale2) + shift2
        return h + gate2 * self.down(F.silu(self.gate(x)) * self.up(x))

    def _attend(self, layers: nn.ModuleList, x: Tensor, context: Tensor) -> Tensor:
        query, key, value, out = layers
        heads = [rearrange(y, "b n (h c) -> b h n c", h=self.heads) for y in (query(x), key(context), value(context))]
        return out(rearrange(F.scaled_dot_product_attention(*heads), "b h n c -> b n (h c)"))


class MovieGen(nn.Module):
    """The blocks of Movie Gen, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([MovieGenBlock(width=6144, heads=48, hidden=16384) for _ in range(48)])


def _ltx_inputs(tokens: int, text: int, width: int) -> tuple[Any, ...]:
    rotation = torch.polar(torch.ones(1, tokens, width // 2, dtype=torch.float32), torch.zeros(1, dtype=torch.float32))
    modulation = torch.randn(1, 1, 6, width, dtype=torch.float32)
    return torch.randn(1, tokens, width), modulation, None, rotation, *torch.randn(2, 1, text, width), None


def _movie_gen_inputs(tokens: int, text: int, width: int) -> tuple[Any, ...]:
    return torch.randn(1, tokens, width), torch.randn(1, 6, width), torch.randn(1, text, width)


def _joint_inputs(time_width: int | None = None, rotary: int | None = None) -> Inputs:
    """Video and text tokens and the embedding of t (``time_width``, else as wide as they are); then a mask and rotary
    tables over ``rotary`` channels, in the order in which HunyuanVideo's blocks take them."""

    def inputs(tokens: int, text: int, width: int) -> tuple[Any, ...]:
        given = (torch.randn(1, tokens, width), torch.randn(1, text, width), torch.randn(1, time_width or width))
        return given if rotary is None else (*given, None, (torch.ones(tokens, rotary), torch.zeros(tokens, rotary)))

    return inputs


def _ltx_transformer() -> nn.Module:
    return VideoTransformer(transformer_preset("2b"))


def _ltx_latent(video: Tensor) -> Tensor:
    return VideoAutoencoder(vae_preset("0.9.0")).encode(video)


def _hunyuan_transformer() -> nn.Module:
    from diffusers import HunyuanVideoTransformer3DModel

    return HunyuanVideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=24, attention_head_dim=128, num_layers=20,
        num_single_layers=40, num_refiner_layers=2, patch_size=2, patch_size_t=1, guidance_embeds=True,
        text_embed_dim=4096, pooled_projection_dim=768,
    )  # fmt: skip


def _hunyuan_latent(video: Tensor) -> Tensor:
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo()  # the defaults are the release's
    return vae.encoder(video)[:, : vae.config["latent_channels"]]


def _pyramid_transformer() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, num_layers=24, attention_head_dim=64, num_attention_heads=24,
        joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=192,
        qk_norm="rms_norm",
    )  # fmt: skip


def _cogvideox_transformer(heads: int, layers: int, rotary: bool) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from diffusers import CogVideoXTransformer3DModel

        return CogVideoXTransformer3DModel(
            num_attention_heads=heads, attention_head_dim=64, in_channels=16, out_channels=16, time_embed_dim=512,
            text_embed_dim=4096, num_layers=layers, attention_bias=True, patch_size=2,
            use_rotary_positional_embeddings=rotary,
        )  # fmt: skip

    return build


def _cogvideox_latent(video: Tensor) -> Tensor:
    from diffusers import AutoencoderKLCogVideoX

    vae = AutoencoderKLCogVideoX()  # the defaults are the releases'
    latent, _ = vae.encoder(video)
    return latent[:, : vae.config["latent_channels"]]


def _cogvideox(size: str, heads: int, layers: int, parameters: float) -> Architecture:
    rotary = size == "5B"
    return Architecture(
        name=f"CogVideoX-{size}",
        source=f"config.json of THUDM/CogVideoX-{size.lower()}, arXiv 2408.06072",
        paper=Published(
            parameters=parameters, width=64 * heads, blocks=layers, vae=(8, 4), channels=16, compression=48,
            patch=(1, 2, 2), pixels_per_token=1024, attention="self (joint)",
        ),
        transformer=_cogvideox_transformer(heads, layers, rotary),
        patch=(1, 2, 2),
        latent=_cogvideox_latent,
        blocks=[Blocks(attribute="transformer_blocks", inputs=_cogvideox_inputs(rotary))],
    )  # fmt: skip


def _cogvideox_inputs(rotary: bool) -> Inputs:
    def inputs(tokens: int, text: int, width: int) -> tuple[Any, ...]:
        *given, _, tables = _joint_inputs(time_width=512, rotary=64)(tokens, text, width)
        return (*given, tables) if rotary else tuple(given)

    return inputs


ARCHITECTURES = (
    Architecture(
        name="LTX-Video",
        source="arXiv 2501.00103; the 0.9.0 release",
        paper=Published(
            parameters=1.9, width=2048, blocks=28, vae=(32, 8), channels=128, compression=192,
            patch=(1, 1, 1), pixels_per_token=8192, attention="self + cross",
        ),
        transformer=_ltx_transformer,
        patch=(1, 1, 1),
        latent=_ltx_latent,
        blocks=[Blocks(attribute="transformer_blocks", inputs=_ltx_inputs)],
    ),
    Architecture(
        name="Movie Gen",
        source="arXiv 2410.13720 (no code or weights are released)",
        paper=Published(
            parameters=30.0, width=6144, blocks=48, vae=(8, 8), channels=16, compression=96,
            patch=(1, 2, 2), pixels_per_token=2048, attention="self + cross",
        ),
        transformer=MovieGen,
        patch=(1, 2, 2),
        latent=(8, 8, 16),
        blocks=[Blocks(attribute="transformer_blocks", inputs=_movie_gen_inputs)],
    ),
    Architecture(
        name="HunyuanVideo",
        source="config.json of tencent/HunyuanVideo, arXiv 2412.03603",
        paper=Published(
            parameters=13.0, width=3072, blocks=60, vae=(8, 4), channels=16, compression=48,
            patch=(1, 2, 2), pixels_per_token=1024, attention="self (joint)",
        ),
        transformer=_hunyuan_transformer,
        patch=(1, 2, 2),
        latent=_hunyuan_latent,
        blocks=[
            Blocks(attribute="transformer_blocks", inputs=_joint_inputs(rotary=128)),
            Blocks(attribute="single_transformer_blocks", inputs=_joint_inputs(rotary=128)),
        ],
    ),
    Architecture(
        name="Pyramid Flow",
        source="config.json of rain1011/pyramid-flow-sd3 (768p), arXiv 2410.05954",
        paper=Published(
            parameters=2.0, width=1536, blocks=24, vae=(8, 8), channels=16, compression=96,
            patch=(1, 2, 2), pixels_per_token=2048, attention="self (joint)",
        ),
        transformer=_pyramid_transformer,
        patch=(1, 2, 2),
        latent=(8, 8, 16),
        blocks=[Blocks(attribute="transformer_blocks", inputs=_joint_inputs())],
    ),
    _cogvideox("2B", heads=30, layers=30, parameters=2.0),
    _cogvideox("5B", heads=48, layers=42, parameters=5.0),
)  # fmt: skip
