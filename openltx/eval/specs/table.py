"""What a network is made of, counted on the meta device: nothing is allocated and no weight is needed.

Parameters, widths, blocks and the latents' shape are read from the modules themselves. Operations are those of matrix
products and attention in one pass over all blocks, as ``torch.utils.flop_counter`` counts them; what stands around the
blocks is below a hundredth of it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from openltx.eval.report import markdown_table
from openltx.eval.specs.architectures import Architecture, Attention, Blocks
from openltx.geometry import VideoShape

TEXT_TOKENS = 256  # for all alike; the releases take 128 to 256
_PROBE = (17, 64, 64)  # frames, height, width of the video whose latents tell a VAE's factors


@dataclass(frozen=True, kw_only=True)
class Specs:
    """One column of the table. ``flops`` is for one pass over a whole video, and so are ``tokens``.

    is_vae_computed   whether the VAE's numbers come from a network, or are published ones
    """

    name: str
    source: str
    parameters: int
    width: int
    blocks: int
    space: int
    time: int
    channels: int
    is_vae_computed: bool
    patch: tuple[int, int, int]
    attention: Attention
    tokens: int
    flops: int

    @property
    def compression(self) -> float:
        """Numbers of the video for each number of its latents."""
        return 3 * self.space**2 * self.time / self.channels

    @property
    def pixels_per_token(self) -> int:
        return self.space**2 * self.time * math.prod(self.patch)


def specs_of(architecture: Architecture, shape: VideoShape) -> Specs:
    """Count everything of one architecture for videos of ``shape``."""
    space, time, channels = latent_of(architecture)
    with torch.device("meta"):
        transformer = architecture.transformer()
        kinds = [blocks_of(transformer, blocks) for blocks in architecture.blocks]
        width = width_of(kinds[0][0])
        tokens = tokens_of(shape, space, time, architecture.patch)
        flops = sum(
            len(modules) * flops_of(modules[0], blocks, tokens, width)
            for modules, blocks in zip(kinds, architecture.blocks, strict=True)
        )
    return Specs(
        name=architecture.name,
        source=architecture.source,
        parameters=sum(parameter.numel() for parameter in transformer.parameters()),
        width=width,
        blocks=sum(len(modules) for modules in kinds),
        space=space,
        time=time,
        channels=channels,
        is_vae_computed=not isinstance(architecture.latent, tuple),
        patch=architecture.patch,
        attention=attention_of(kinds[0][0]),
        tokens=tokens,
        flops=flops,
    )


def latent_of(architecture: Architecture) -> tuple[int, int, int]:
    """The VAE's factors in space and time and its channels: from the latents of a small video, or as published."""
    if isinstance(architecture.latent, tuple):
        return architecture.latent
    frames, height, width = _PROBE
    with torch.device("meta"), torch.no_grad():
        _, channels, f, h, _ = architecture.latent(torch.empty(1, 3, frames, height, width)).shape
    return height // h, (frames - 1) // (f - 1), channels


def blocks_of(transformer: nn.Module, blocks: Blocks) -> list[nn.Module]:
    """The transformer's blocks of one kind."""
    return list(transformer.get_submodule(blocks.attribute).children())


def width_of(block: nn.Module) -> int:
    """The width of the residual stream: the side that occurs most often among the block's matrices."""
    sides = Counter(side for parameter in block.parameters() if parameter.ndim == 2 for side in parameter.shape)
    return sides.most_common(1)[0][0]


def attention_of(block: nn.Module) -> Attention:
    """Whether text comes in by an attention of its own; in these networks that is called attn2."""
    return "self + cross" if any(name == "attn2" for name, _ in block.named_children()) else "self (joint)"


def tokens_of(shape: VideoShape, space: int, time: int, patch: tuple[int, int, int]) -> int:
    """The tokens of a video whose first frame is a latent of its own."""
    f, h, w = (shape.frames - 1) // time + 1, shape.height // space, shape.width // space
    return (f // patch[0]) * (h // patch[1]) * (w // patch[2])


@torch.no_grad()
def flops_of(block: nn.Module, blocks: Blocks, tokens: int, width: int) -> int:
    """Operations of one block, on the meta device."""
    inputs = blocks.inputs(tokens, TEXT_TOKENS, width)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        block(*inputs)
    return counter.get_total_flops()


def to_markdown(found: Sequence[Specs], architectures: Sequence[Architecture], shape: VideoShape) -> str:
    """The paper's Table 1, a column for each model; where a figure reads differently in the paper, that follows it."""
    seconds = shape.frames / shape.fps
    papers = [architecture.paper for architecture in architectures]
    pairs = list(zip(found, papers, strict=True))
    rows = [
        ["parameters", *(_beside(f"{s.parameters / 1e9:.2f}B", f"{p.parameters:g}B") for s, p in pairs)],
        ["width", *(_beside(str(s.width), str(p.width)) for s, p in pairs)],
        ["blocks", *(_beside(str(s.blocks), str(p.blocks)) for s, p in pairs)],
        ["VAE", *(_beside(_vae(s.space, s.time, s.channels), _vae(*p.vae, p.channels)) + _star(s) for s, p in pairs)],
        ["compression", *(_beside(f"1:{s.compression:g}", f"1:{p.compression}") for s, p in pairs)],
        ["patch", *(_beside(_patch(s.patch), _patch(p.patch)) for s, p in pairs)],
        ["pixels : token", *(_beside(f"1:{s.pixels_per_token}", f"1:{p.pixels_per_token}") for s, p in pairs)],
        ["attention", *(_beside(s.attention, p.attention) for s, p in pairs)],
        ["tokens per second of video", *(f"{s.tokens / seconds:.0f}" for s in found)],
        ["TFLOP per step and second of video", *(f"{s.flops / seconds / 1e12:.3g}" for s in found)],
        ["TFLOP per step, whole video", *(f"{s.flops / 1e12:.4g}" for s in found)],
    ]
    size = f"{shape.width}x{shape.height}, {shape.frames} frames, {shape.fps:g} fps"
    notes = (
        "In brackets: the paper's figure, where it reads differently. *: published, not computed. "
        f"Tokens and operations (of the blocks, {TEXT_TOKENS} text tokens) are for {size}, with every token at once; "
        "Pyramid Flow in fact works on smaller pictures in most steps and on one part of the video after the other."
    )
    return f"{markdown_table(['', *(s.name for s in found)], rows)}\n\n{notes}\n"


def to_json(found: Sequence[Specs], architectures: Sequence[Architecture], shape: VideoShape) -> dict[str, Any]:
    """The same as JSON values, the paper's figures beside each model's own."""
    models = [
        {**asdict(s), "compression": s.compression, "pixels_per_token": s.pixels_per_token, "paper": asdict(a.paper)}
        for s, a in zip(found, architectures, strict=True)
    ]
    return {**asdict(shape), "text_tokens": TEXT_TOKENS, "models": models}


def _beside(computed: str, paper: str) -> str:
    return computed if computed == paper else f"{computed} ({paper})"


def _vae(space: int, time: int, channels: int) -> str:
    return f"{space}x{space}x{time}, {channels}"


def _star(specs: Specs) -> str:
    return "" if specs.is_vae_computed else " *"


def _patch(patch: tuple[int, int, int]) -> str:
    time, height, width = patch
    return f"{width}x{height}x{time}"
