"""Encode and decode long videos a few frames at a time, exactly.

Overlapped chunks are only an approximation: the decoder of 0.9.5 sees about 22 latents to each side. Here every layer
is a generator that takes chunks of frames and gives chunks of frames, and keeps what it will still need: a convolution
its last two input frames, a residual block the frames that its branch has not caught up with. The chain of generators
pulls chunks through the whole network, so memory grows with the chunk and not with the video, and the numbers are
those of the whole pass.

No layer may hold a chunk while it waits for the next one, or every layer's would lie in memory at once: hence ``map``
instead of loops, and copies of the few frames that are kept instead of views of many.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openltx.kernels.memory import trim
from openltx.kernels.volume import depth_to_space, norm_activate, space_to_depth, to_fast_layout
from openltx.models.vae.autoencoder import (
    Decoder,
    Encoder,
    VideoAutoencoder,
    patchify_pixels,
    unpatchify_pixels,
)
from openltx.models.vae.layers import (
    CausalConv3d,
    DepthToSpace,
    NoiseMaps,
    ResBlock,
    ResGroup,
    SpaceToDepth,
    add_noise,
)
from openltx.noise import Generators, randn

Chunks = Iterator[Tensor]
"""Consecutive pieces (b c f h w) of one clip; pieces may differ in length, none is empty."""

PIECE_BYTES = 2**23
"""A convolution whose output is larger gives it in several pieces, so that wide frames pass the network one by one."""


def decode_stream(
    vae: VideoAutoencoder,
    latents: Float[Tensor, "b c f h w"],
    t: float | Float[Tensor, "b"] | None = None,
    noise_scale: float | Float[Tensor, "b"] | None = None,
    tone_map: float = 0.0,
    generator: Generators = None,
    *,
    chunk: int = 1,
) -> Iterator[Float[Tensor, "b 3 F H W"]]:
    """``vae.decode`` in pieces: pixels of consecutive frames, ``chunk`` latent frames at a time."""
    z, level = vae.decoder_input(latents, t, noise_scale, tone_map, generator)
    return decode_ready(vae, z, level, noise_maps(latents, generator), chunk=chunk)


def decode_ready(
    vae: VideoAutoencoder,
    z: Float[Tensor, "b c f h w"],
    level: Float[Tensor, "b"] | None,
    noise: NoiseMaps,
    *,
    chunk: int = 1,
) -> Iterator[Float[Tensor, "b 3 F H W"]]:
    """The decoder on what ``VideoAutoencoder.decoder_input`` gave, in pieces."""
    yield from _decoded(vae, iter(z.split(chunk, 2)), level, noise)


def noise_maps(like: Float[Tensor, "b c f h w"], generator: Generators) -> NoiseMaps:
    """Draws the decoder's injected noise for a batch of latents."""
    b, device, dtype = like.shape[0], like.device, like.dtype
    return lambda height, width: randn((b, 1, 1, height, width), generator, device=device, dtype=dtype)


def decode_pieces(
    vae: VideoAutoencoder,
    latents: Iterable[Float[Tensor, "b c _ h w"]],
    t: float | None = None,
    tone_map: float = 0.0,
    generator: Generators = None,
) -> Iterator[Float[Tensor, "b 3 F H W"]]:
    """``decode_stream`` of latents that come in pieces, as they are made: a video whose end is not there yet.

    The latents are at noise level ``t`` already. However they are cut into pieces, the pixels are those of the whole.
    """
    frames = (frame for piece in latents for frame in piece.split(1, 2))
    first = next(frames, None)
    if first is None:
        return
    inputs = (vae.decoder_input(frame, t, 0.0, tone_map, None) for frame in itertools.chain([first], frames))
    _, level = vae.decoder_input(first, t, 0.0, tone_map, None)
    yield from _decoded(vae, (z for z, _ in inputs), level, noise_maps(first, generator))


def encode_stream(
    vae: VideoAutoencoder, video: Iterable[Float[Tensor, "b 3 F H W"]]
) -> Iterator[Float[Tensor, "b c f h w"]]:
    """``vae.encode`` (the posterior's mean) of a video that comes in pieces: the first of 8k + 1 frames, then of 8k."""
    vae.ready(vae.encoder)
    for piece in _encoder(vae.encoder, iter(video)):
        yield vae.normalise(vae.encoder.posterior(piece).mean)
        vae.ready(vae.encoder)


def split_frames(video: Float[Tensor, "b 3 F H W"], frames: int = 8) -> Iterator[Float[Tensor, "b 3 F2 H W"]]:
    """A clip in the pieces that ``encode_stream`` takes: ``frames`` (a multiple of 8) and one more, then ``frames``."""
    yield video[:, :, : 1 + frames]
    yield from (piece for piece in video[:, :, 1 + frames :].split(frames, 2) if piece.shape[2])


def _decoded(vae: VideoAutoencoder, chunks: Chunks, t: Tensor | None, noise: NoiseMaps) -> Chunks:
    """The decoder's pixels. Who gives chunks and who takes pixels may use other networks in between."""

    def ready(x: Tensor) -> Tensor:
        vae.ready(vae.decoder)
        trim()  # what the chunk before has left behind: it comes in many sizes, and would pile up
        return x

    vae.ready(vae.decoder)
    for piece in _decoder(vae.decoder, map(ready, chunks), t, noise):
        yield unpatchify_pixels(piece, vae.config.patch_size)
        vae.ready(vae.decoder)
        trim()


def _decoder(decoder: Decoder, chunks: Chunks, t: Tensor | None, noise: NoiseMaps) -> Chunks:
    scaled = None if t is None else t * decoder.timestep_scale_multiplier
    x = _convolution(decoder.conv_in, map(to_fast_layout, chunks))
    for block in decoder.up_blocks:
        x = _layer(block, x, scaled, noise)
    shift, scale = decoder.last_modulation(scaled)
    return _convolution(decoder.conv_out, map(partial(norm_activate, shift=shift, scale=scale), x))


def _encoder(encoder: Encoder, video: Chunks) -> Chunks:
    x = _convolution(encoder.conv_in, (to_fast_layout(patchify_pixels(v, encoder.config.patch_size)) for v in video))
    for block in encoder.down_blocks:
        x = _layer(block, x, None, None)
    return _convolution(encoder.conv_out, map(norm_activate, x))


def _layer(block: nn.Module, x: Chunks, t: Tensor | None, noise: NoiseMaps | None) -> Chunks:
    match block:
        case ResGroup():
            embedding = block.time_embedder(t) if block.time_embedder is not None else None
            for inner in block.res_blocks:
                assert isinstance(inner, ResBlock)
                x = _residual(inner, x, embedding, noise)
            return x
        case ResBlock():
            return _residual(block, x, None, noise)
        case SpaceToDepth():
            return _down(block, x)
        case DepthToSpace():
            return _up(block, x)
        case CausalConv3d():
            return _convolution(block, x)
        case _:
            raise AssertionError(f"{type(block).__name__} cannot be streamed")


def _convolution(layer: CausalConv3d, chunks: Chunks, multiple: int = 1) -> Chunks:
    """Every window of three frames once: what the next window needs again is kept.

    Each piece has a ``multiple`` of so many frames if each chunk has.
    """
    stride, kept, done = layer.conv.stride[0], None, list[Tensor]()
    for x in chunks:
        kept = _continued(layer, kept, x)
        del x
        windows = (kept.shape[2] - 3) // stride + 1
        at_once = max(multiple, _windows_at_once(layer, kept) // multiple * multiple)
        for first in range(0, windows, at_once):
            last = min(first + at_once, windows) - 1
            done.append(layer.inner(kept[:, :, first * stride : last * stride + 3]))
            if last + 1 == windows:
                kept = kept[:, :, windows * stride :].clone(memory_format=torch.preserve_format)
            yield done.pop()
    if kept is not None and not layer.causal:
        yield layer.inner(torch.cat([kept, kept[:, :, -1:]], 2))


def _continued(layer: CausalConv3d, kept: Tensor | None, x: Tensor) -> Tensor:
    """What a convolution has kept with the next frames, or the first ones with what is repeated before them."""
    before = [kept] if kept is not None else [x[:, :, :1]] * (2 if layer.causal else 1)
    return torch.cat([*before, x], 2)


def _windows_at_once(layer: CausalConv3d, x: Tensor) -> int:
    """How many output frames of a convolution make a piece of ``PIECE_BYTES``."""
    conv = layer.conv
    frame = x.shape[0] * conv.out_channels * x.shape[3] * x.shape[4] // math.prod(conv.stride[1:]) * x.element_size()
    return max(1, PIECE_BYTES // frame)


def _residual(block: ResBlock, chunks: Chunks, embedding: Tensor | None, noise: NoiseMaps | None) -> Chunks:
    (shift1, scale1), (shift2, scale2) = block.modulations(embedding)
    trunk = _Trunk(block, partial(norm_activate, shift=shift1, scale=scale1))
    y = _noisy(trunk.convolved(chunks), block.per_channel_scale1, noise)
    y = _convolution(block.conv2, map(partial(norm_activate, shift=shift2, scale=scale2), y))
    return map(trunk.add, _noisy(y, block.per_channel_scale2, noise))


class _Trunk:
    """A residual block's raw input, kept once for its first convolution and for the sum."""

    def __init__(self, block: ResBlock, norm: Callable[[Tensor], Tensor]) -> None:
        self._layer, self._shortcut, self._norm = block.conv1, block.shortcut, norm
        self._kept: Tensor | None = None
        self._added = 2 if self._layer.causal else 1  # frames of ``_kept`` that are behind, or repeated before the clip

    def convolved(self, chunks: Chunks) -> Chunks:
        for x in chunks:
            self._kept = _continued(self._layer, self._kept, x)
            del x
            windows = self._kept.shape[2] - 2
            at_once = _windows_at_once(self._layer, self._kept)
            for first in range(0, windows, at_once):
                yield self._piece(self._kept[:, :, first : min(first + at_once, windows) + 2])
            self._kept = self._kept[:, :, windows:].clone(memory_format=torch.preserve_format)
            self._added -= windows
        if self._kept is not None and not self._layer.causal:
            yield self._piece(torch.cat([self._kept, self._kept[:, :, -1:]], 2))

    def _piece(self, x: Tensor) -> Tensor:
        return self._layer.inner(self._norm(to_fast_layout(x)))

    def add(self, x: Tensor) -> Tensor:
        """The sum for the next frames."""
        assert self._kept is not None
        first, self._added = self._added, self._added + x.shape[2]
        return x + self._shortcut(self._kept[:, :, first : self._added])


def _noisy(chunks: Chunks, scale: Tensor | None, noise: NoiseMaps | None) -> Chunks:
    """``add_noise`` with the one map of this place for all frames, drawn when the first of them comes."""
    drawn: Tensor | None = None

    def noised(x: Tensor) -> Tensor:
        return add_noise(x, scale, the_map)

    def the_map(height: int, width: int) -> Tensor:
        nonlocal drawn
        assert noise is not None
        if drawn is None:
            drawn = noise(height, width)
        return drawn

    return map(noised, chunks)


def _up(block: DepthToSpace, chunks: Chunks) -> Chunks:
    skip = _Delay()
    drop = block.stride[0] - 1  # the clip's first frame

    def shuffled(y: Tensor) -> Tensor:
        nonlocal drop
        here, drop = drop, 0
        trim()  # layers behind ask for other sizes than those that lie free
        return depth_to_space(y, block.stride, skip.take(y.shape[2]) if block.residual else None, here)

    return map(shuffled, _convolution(block.conv, map(skip.hold, chunks) if block.residual else chunks))


def _down(block: SpaceToDepth, chunks: Chunks) -> Chunks:
    skip = _Delay(block.shortcut)

    def shuffled(y: Tensor) -> Tensor:
        return (space_to_depth(y, block.stride) + skip.take(y.shape[2] // block.stride[0])).to(y.dtype)

    return map(shuffled, _convolution(block.conv, map(skip.hold, _even(chunks, block.stride[0])), block.stride[0]))


def _even(chunks: Chunks, stride: int) -> Chunks:
    """With a time stride of 2 the first frame stands twice, and pieces get even lengths."""
    held: Tensor | None = None
    for i, x in enumerate(chunks):
        if held is not None or (i == 0 and stride == 2):
            x = torch.cat([x[:, :, :1] if held is None else held, x], 2)
        even = x.shape[2] // stride * stride
        held = x[:, :, even:].clone(memory_format=torch.preserve_format) if even < x.shape[2] else None
        if even:
            yield x if held is None else x[:, :, :even]
    assert held is None, "a video has 8k + 1 frames"


class _Delay:
    """Holds (a function of) the chunks that pass through until the other branch has caught up."""

    def __init__(self, function: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self._function = function
        self._held: Tensor | None = None

    def hold(self, x: Tensor) -> Tensor:
        y = self._function(x)
        self._held = y if self._held is None else torch.cat([self._held, y], 2)
        return x

    def take(self, frames: int) -> Tensor:
        assert self._held is not None
        taken, left = self._held[:, :, :frames], self._held[:, :, frames:]
        self._held = left.clone(memory_format=torch.preserve_format) if left.shape[2] else None
        return taken
