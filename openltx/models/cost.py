"""What the networks cost, from their configuration alone: operations, parameters, memory at work.

Operations are those of matrix products and convolutions, two for each multiplication with its addition; what stands
between them is memory traffic. With n video tokens, l caption tokens and width d, one pass through L blocks takes

    L (28 n d^2 + 4 n^2 d + 4 n l d)        q, k, v, out; q, out; 8 d^2 of feed-forward; two attentions

and a convolution 2 * taps * c_in * c_out for each position that it writes. Memory at work is the largest number of
values that live at once, weights apart: that of the code here, not what a network needs in principle.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from openltx.geometry import LatentShape
from openltx.models.timestep import SINUSOID_CHANNELS
from openltx.models.transformer import TransformerConfig
from openltx.models.vae.autoencoder import Block, VAEConfig
from openltx.models.vae.streaming import PIECE_BYTES

KERNEL = 27  # taps of a 3 x 3 x 3 convolution
_STRIDES = {"time": (2, 1, 1), "space": (1, 2, 2), "all": (2, 2, 2)}


def step_flops(config: TransformerConfig, tokens: int, text_tokens: int) -> int:
    """One pass of the transformer over one video, all tokens at one time (``VideoTransformer.step``)."""
    n, d = tokens, config.width
    block = 28 * n * d**2 + 4 * n**2 * d + 4 * n * text_tokens * d
    ends = 2 * n * d * (config.in_channels + config.out_channels)
    return config.num_layers * block + ends + 2 * (SINUSOID_CHANNELS * d + 7 * d**2)


def prepare_flops(config: TransformerConfig, text_tokens: int) -> int:
    """What is done once for a prompt (``VideoTransformer.prepare``): its projection, keys and values."""
    d = config.width
    return 2 * text_tokens * (config.caption_channels * d + d**2 + config.num_layers * 2 * d**2)


def block_parameters(config: TransformerConfig) -> int:
    """Numbers in one block of the transformer."""
    return 16 * config.width**2 + 23 * config.width


def transformer_parameters(config: TransformerConfig) -> int:
    """Numbers in the whole transformer."""
    d = config.width
    ends = d * (config.in_channels + config.out_channels + 1) + config.out_channels
    time = (SINUSOID_CHANNELS + 1) * d + (d + 1) * d + (d + 1) * 6 * d
    caption = (config.caption_channels + 1) * d + (d + 1) * d
    return config.num_layers * block_parameters(config) + ends + time + caption + 2 * d


def context_numbers(config: TransformerConfig, text_tokens: int) -> int:
    """What ``prepare`` keeps of a prompt: keys and values in each block."""
    return 2 * config.num_layers * text_tokens * config.width


def step_numbers(config: TransformerConfig, tokens: int) -> int:
    """The most that lives in a pass: the residual stream, its normed copy, the hidden layer of 4 d and its output."""
    return 7 * tokens * config.width


@dataclass(frozen=True)
class Volume:
    """A grid with channels."""

    channels: int
    frames: int
    height: int
    width: int

    @property
    def numbers(self) -> int:
        return self.channels * self.frames * self.height * self.width


@dataclass(frozen=True)
class Layer:
    """A convolution with ``taps`` weights between each two channels, ``used`` of them at work; or a linear layer."""

    inputs: int
    output: Volume
    taps: int = KERNEL
    used: int = KERNEL

    @property
    def flops(self) -> int:
        return 2 * self.used * self.inputs * self.output.numbers

    @property
    def parameters(self) -> int:
        return self.output.channels * (self.taps * self.inputs + 1)


def decode_flops(config: VAEConfig, latent: LatentShape) -> int:
    """The decoder on the latents of one video."""
    return sum(layer.flops for layer in _decoder_layers(config, latent))


def encode_flops(config: VAEConfig, latent: LatentShape) -> int:
    """The encoder on a video that becomes ``latent``."""
    return sum(layer.flops for layer in _encoder_layers(config, latent))


def decoder_parameters(config: VAEConfig) -> int:
    """Numbers in the decoder's layers (its tables, a few thousand, apart)."""
    return sum(layer.parameters for layer in _decoder_layers(config, LatentShape(frames=2, height=1, width=1)))


def encoder_parameters(config: VAEConfig) -> int:
    """Numbers in the encoder's layers."""
    return sum(layer.parameters for layer in _encoder_layers(config, LatentShape(frames=2, height=1, width=1)))


def decode_numbers(config: VAEConfig, latent: LatentShape, *, streamed: bool) -> int:
    """The most that lives in the decoder: whole, a few copies of its largest volume; ``streamed``, see below.

    Streamed, each convolution keeps two frames of its input, an upsampling one more; and one layer at a time works, on
    the frames that one latent becomes there, or on as few as make a piece (``streaming.PIECE_BYTES``).
    """
    if not streamed or latent.frames == 1:
        return 4 * max(after.numbers for _, _, after in _decoder_blocks(config, latent))
    kept, working = 0, 0
    for block, before, after in _decoder_blocks(config, replace_frames(latent, 2)):
        frame = before.numbers // before.frames
        frames = max(before.frames - 1, 1)  # that one latent gives here
        piece = _piece(frame, frames)
        if block.kind.startswith("res"):
            kept += 4 * frame * block.num_layers
            working = max(working, 3 * piece + 6 * frame)
        else:
            kept += 3 * frame
            working = max(working, 3 * _piece(after.numbers // after.frames * (after.frames - 1) // frames, frames))
    return kept + working


def _piece(frame: int, frames: int) -> int:
    """Numbers in a piece of at most ``frames`` frames."""
    return frame * min(frames, max(1, PIECE_BYTES // 2 // frame))


def encode_numbers(config: VAEConfig, latent: LatentShape) -> int:
    """The most that lives in the encoder, which is given a video as a whole."""
    return 4 * max(before.numbers for _, before, _ in _encoder_blocks(config, latent))


def replace_frames(latent: LatentShape, frames: int) -> LatentShape:
    """The same picture, more or less long."""
    return replace(latent, frames=frames)


def _decoder_blocks(config: VAEConfig, latent: LatentShape) -> Iterator[tuple[Block, Volume, Volume]]:
    """Each block of the decoder with its input and its output, from the latents to the pixels."""
    channels = config.decoder_base_channels * math.prod(_narrowing(block) for block in config.decoder_blocks)
    now = Volume(channels, latent.frames, latent.height, latent.width)
    for block in reversed(config.decoder_blocks):
        before, (f, h, w) = now, _stride(block)
        now = Volume(now.channels // _narrowing(block), (now.frames - 1) * f + 1, now.height * h, now.width * w)
        yield block, before, now


def _decoder_layers(config: VAEConfig, latent: LatentShape) -> Iterator[Layer]:
    conditioned = config.timestep_conditioning
    now = None
    for number, (block, before, now) in enumerate(_decoder_blocks(config, latent)):
        if number == 0:
            yield _conv(config.latent_channels, before)
        c = before.channels
        if block.kind == "res_x":
            if conditioned:
                yield from _embedder(4 * c)
            for _ in range(2 * block.num_layers):
                yield _conv(c, before)
        elif block.kind == "res_x_y":
            yield from _widening(c, now)
        else:
            wide = math.prod(_stride(block)) * now.channels
            yield _conv(c, replace(before, channels=wide))
    assert now is not None, "a decoder has blocks"
    if conditioned:
        yield from _embedder(2 * now.channels)
    yield _conv(now.channels, replace(now, channels=3 * config.patch_size**2))


def _encoder_blocks(config: VAEConfig, latent: LatentShape) -> Iterator[tuple[Block, Volume, Volume]]:
    """Each block of the encoder with its input and its output, from the pixels to the latents."""
    time, space = config.compression
    scale = space // config.patch_size
    now = Volume(
        config.encoder_base_channels, (latent.frames - 1) * time + 1, latent.height * scale, latent.width * scale
    )
    for block in config.encoder_blocks:
        before, (f, h, w) = now, _stride(block)
        wider = now.channels * (block.multiplier if block.kind.endswith(("_y", "_res")) else 1)
        now = Volume(wider, (now.frames - 1) // f + 1, now.height // h, now.width // w)
        yield block, before, now


def _encoder_layers(config: VAEConfig, latent: LatentShape) -> Iterator[Layer]:
    now = None
    for number, (block, before, now) in enumerate(_encoder_blocks(config, latent)):
        if number == 0:
            yield _conv(3 * config.patch_size**2, before)
        c = before.channels
        if block.kind == "res_x":
            for _ in range(2 * block.num_layers):
                yield _conv(c, before)
        elif block.kind == "res_x_y":
            yield from _widening(c, now)
        elif block.kind.endswith("_res"):
            f, h, w = _stride(block)
            frames = before.frames + (f == 2)  # the first frame stands twice
            yield _conv(c, Volume(now.channels // (f * h * w), frames, before.height, before.width))
        else:
            yield _conv(c, now, single=before.frames == 1)
    assert now is not None, "an encoder has blocks"
    extra = {"uniform": 1, "per_channel": config.latent_channels, "constant": 0, "none": 0}[config.latent_log_var]
    yield _conv(now.channels, replace(now, channels=config.latent_channels + extra))


def _conv(inputs: int, output: Volume, *, single: bool | None = None) -> Layer:
    """A 3 x 3 x 3 convolution. On a ``single`` frame, which meets itself in time, it is one in the plane."""
    flat = output.frames == 1 if single is None else single
    return Layer(inputs, output, used=9 if flat else KERNEL)


def _widening(channels: int, output: Volume) -> Iterator[Layer]:
    """A residual block between two widths: its convolutions, and the shortcut's."""
    yield _conv(channels, output)
    yield _conv(output.channels, output)
    yield Layer(channels, output, taps=1, used=1)


def _embedder(outputs: int) -> Iterator[Layer]:
    """The two linear layers on t."""
    row = Volume(outputs, 1, 1, 1)
    yield Layer(SINUSOID_CHANNELS, row, taps=1, used=1)
    yield Layer(outputs, row, taps=1, used=1)


def _stride(block: Block) -> tuple[int, int, int]:
    return _STRIDES[block.kind.split("_")[1]] if block.kind.startswith("compress") else (1, 1, 1)


def _narrowing(block: Block) -> int:
    return block.multiplier if block.kind in ("res_x_y", "compress_all") else 1
