"""Decode in tiles: for pictures so large that even a few frames of them do not fit into memory.

A tile is a rectangle of the latents that is decoded as a video of its own, exactly over time (``streaming``). At its
edge it does not see its neighbours, so tiles overlap, and where they do one is faded into the other:

    video(x) = sum over tiles of w(x) tile(x),      w = w_y w_x,    the sum of w over all tiles is 1 everywhere

with trapezoids for w_y and w_x. That is an approximation of decoding whole, the closer the wider the overlap. Memory is
that of one tile. The whole video grows on a canvas, which may be a file.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.errors import RequestError
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.models.vae.layers import NoiseMaps
from openltx.models.vae.streaming import decode_ready, noise_maps

Canvas = Callable[[Sequence[int]], Tensor]
"""Zeros of a shape."""


@dataclass(frozen=True)
class Tile:
    """A square of ``size`` pixels that overlaps its neighbours by at least ``overlap``; both multiples of 32."""

    size: int
    overlap: int = 64

    def __post_init__(self) -> None:
        if self.size % 32 or self.overlap % 32 or not 0 < self.overlap <= self.size // 2:
            raise RequestError(
                f"Tiles of {self.size} pixels that overlap by {self.overlap} are not possible: both must be multiples "
                "of 32, and the overlap at most half of the tile."
            )

    def places(self, length: int) -> list[tuple[int, int]]:
        """(start, end) of the tiles along a side of ``length``, as few as will do, evenly spread on the grid of 32."""
        if length <= self.size:
            return [(0, length)]
        count = math.ceil((length - self.overlap) / (self.size - self.overlap))
        free = (length - self.size) // 32
        starts = [32 * (free * i // (count - 1)) for i in range(count)]
        return [(start, start + self.size) for start in starts]


def decode_tiles(
    vae: VideoAutoencoder,
    latents: Float[Tensor, "b c f h w"],
    t: float | Float[Tensor, "b"] | None = None,
    noise_scale: float | Float[Tensor, "b"] | None = None,
    tone_map: float = 0.0,
    generator: torch.Generator | None = None,
    *,
    tile: Tile,
    canvas: Canvas = torch.zeros,
    chunk: int = 1,
) -> Iterator[Float[Tensor, "b 3 F H W"]]:
    """``vae.decode`` in tiles, about; frames come in pieces once the last tile is done.

    The noise of the whole picture is drawn, and each tile gets its part of it. ``canvas`` makes what the video is
    collected on, in float32.
    """
    z, level = vae.decoder_input(latents, t, noise_scale, tone_map, generator)
    b, _, f, h, w = z.shape
    video = canvas((8 * f - 7, b, 3, 32 * h, 32 * w))
    rows, columns = (tile.places(32 * length) for length in (h, w))
    fades = _fades(rows), _fades(columns)
    start = None if generator is None else generator.get_state()
    for (i, (top, bottom)), (j, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
        part = z[..., top // 32 : bottom // 32, left // 32 : right // 32]
        weight = fades[0][i][:, None] * fades[1][j]
        if generator is not None and start is not None:
            generator.set_state(start)
        noise = _part_of(noise_maps(latents, generator), (h, w), (top // 32, left // 32), part.shape[-2:])
        frame = 0
        for piece in decode_ready(vae, part, level, noise, chunk=chunk):
            pixels = piece.movedim(2, 0).to(video) * weight.to(video)
            video[frame : frame + len(pixels), ..., top:bottom, left:right] += pixels
            frame += len(pixels)
    yield from (piece.movedim(0, 2) for piece in video.split(8))


def _fades(places: Sequence[tuple[int, int]]) -> list[Float[Tensor, "_"]]:
    """The weight of each tile along one side: 1 where it is alone, ramps where it overlaps; together 1 everywhere."""
    length = places[-1][1]
    ramps = []
    for k, (start, end) in enumerate(places):
        x = torch.arange(start, end) + 0.5
        ramp = torch.ones(end - start)
        if k > 0:
            ramp = torch.minimum(ramp, (x - start) / (places[k - 1][1] - start))
        if k < len(places) - 1:
            ramp = torch.minimum(ramp, (end - x) / (end - places[k + 1][0]))
        ramps.append(ramp)
    total = torch.zeros(length)
    for (start, end), ramp in zip(places, ramps, strict=True):
        total[start:end] += ramp
    return [ramp / total[start:end] for (start, end), ramp in zip(places, ramps, strict=True)]


def _part_of(noise: NoiseMaps, whole: Sequence[int], corner: Sequence[int], size: Sequence[int]) -> NoiseMaps:
    """The noise of a tile: drawn for the whole picture, on whatever grid the layer has, and cut."""

    def cut(height: int, width: int) -> Tensor:
        scale = height // size[0]
        drawn = noise(whole[0] * scale, whole[1] * scale)
        return drawn[..., corner[0] * scale :, corner[1] * scale :][..., :height, :width]

    return cut
