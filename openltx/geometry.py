"""Pixels, latents, tokens: the arithmetic of sizes and positions.

The Video-VAE maps a video of ``F x H x W`` pixels to a latent grid of ``f x h x w`` (paper section 2):

    F = 8 (f - 1) + 1        H = 32 h        W = 32 w        one latent cell = one token

The first frame has a latent frame of its own (the encoder is causal), hence 8k + 1 frames. A token's position is the
top-left corner of its cell, in seconds and in pixels, so that the model sees real time and real size whatever the
frame rate and resolution.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from openltx.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Pixels per latent cell along time and along each side of the frame. The paper's VAE: 8 and 32."""

    time: int = 8
    space: int = 32


LTX_COMPRESSION = Compression()


@dataclass(frozen=True, kw_only=True)
class LatentShape:
    """The latent grid: ``frames`` (f), ``height`` (h), ``width`` (w), in cells."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        return self.frames * self.height * self.width

    def video(self, fps: float, compression: Compression = LTX_COMPRESSION) -> "VideoShape":
        """The pixel size that encodes to this grid."""
        return VideoShape(
            frames=(self.frames - 1) * compression.time + 1,
            height=self.height * compression.space,
            width=self.width * compression.space,
            fps=fps,
        )


@dataclass(frozen=True, kw_only=True)
class VideoShape:
    """A video's size: ``frames`` (F), ``height`` (H) and ``width`` (W) in pixels, ``fps`` in frames a second."""

    frames: int
    height: int
    width: int
    fps: float

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def is_on_grid(self, compression: Compression = LTX_COMPRESSION) -> bool:
        """Whether frames are 8k + 1 and both sides are multiples of 32."""
        return (
            min(self.frames, self.height, self.width) >= 1
            and (self.frames - 1) % compression.time == 0
            and self.height % compression.space == 0
            and self.width % compression.space == 0
        )

    def padded(self, compression: Compression = LTX_COMPRESSION) -> "VideoShape":
        """The smallest size on the grid that holds this one (frames up to 8k + 1, sides up to a multiple of 32)."""
        return VideoShape(
            frames=_ceil_to(max(self.frames, 1) - 1, compression.time) + 1,
            height=_ceil_to(max(self.height, 1), compression.space),
            width=_ceil_to(max(self.width, 1), compression.space),
            fps=self.fps,
        )

    def require_on_grid(self, compression: Compression = LTX_COMPRESSION) -> None:
        """Raise ``RequestError`` naming the nearest valid numbers if this size is off the grid."""
        problems = []
        if self.frames < 1 or (self.frames - 1) % compression.time:
            problems.append(f"frames={self.frames} (nearest: {_near(self.frames - 1, compression.time, offset=1)})")
        for name, side in (("height", self.height), ("width", self.width)):
            if side < 1 or side % compression.space:
                problems.append(f"{name}={side} (nearest: {_near(side, compression.space, minimum=compression.space)})")
        if problems:
            raise RequestError(
                f"The model makes videos of {compression.time}k+1 frames with sides that are multiples of "
                f'{compression.space}. Not possible: {", ".join(problems)}. Choose one of these, or use fit="pad" '
                "(--fit pad) to generate the next larger size and crop it back."
            )

    def latent(self, compression: Compression = LTX_COMPRESSION) -> LatentShape:
        """The latent grid of this size; raises ``RequestError`` if it is off the grid."""
        self.require_on_grid(compression)
        return LatentShape(
            frames=(self.frames - 1) // compression.time + 1,
            height=self.height // compression.space,
            width=self.width // compression.space,
        )


def token_positions(
    shape: LatentShape,
    fps: float,
    causal: bool = True,
    compression: Compression = LTX_COMPRESSION,
    first_frame: int = 0,
) -> Float[Tensor, "3 n"]:
    """Positions of all tokens in (seconds, pixels, pixels): the top-left corners of their cells, frame-major order.

    With ``causal`` (0.9.5 and later) the first latent frame covers one pixel frame and the others eight, so latent
    frame f starts at pixel frame max(0, 8 f + 1 - 8) = 0, 1, 9, 17, ...; without it (0.9.0, 0.9.1) at 8 f.
    ``first_frame`` moves all of it to a later pixel frame of a longer video.

    Frames become seconds by multiplying with 1 / fps, rounded as in the released code: the fastest rotary angles are
    10000 times larger, and what the last bit means there is seen.
    """
    frame = torch.arange(shape.frames, dtype=torch.float32) * compression.time
    if causal:
        frame = (frame + 1 - compression.time).clamp(min=0)
    y = torch.arange(shape.height, dtype=torch.float32) * compression.space
    x = torch.arange(shape.width, dtype=torch.float32) * compression.space
    grid = torch.meshgrid((frame + first_frame) * (1 / fps), y, x, indexing="ij")
    return torch.stack(grid).flatten(1)


def patchify(latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b f*h*w c"]:
    """Latents as tokens, one a cell, frame-major, then row, then column. (There is no patching left to do: paper 2.)"""
    return rearrange(latents, "b c f h w -> b (f h w) c")


def unpatchify(tokens: Float[Tensor, "b n c"], shape: LatentShape) -> Float[Tensor, "b c f h w"]:
    """The inverse of ``patchify`` on a grid of ``shape``."""
    return rearrange(tokens, "b (f h w) c -> b c f h w", f=shape.frames, h=shape.height, w=shape.width)


def _ceil_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _near(value: int, multiple: int, *, offset: int = 0, minimum: int = 0) -> str:
    """The valid values around ``value + offset``: "25 or 33"."""
    low = max(value // multiple * multiple, minimum)
    return f"{low + offset}" if low >= value else f"{low + offset} or {low + multiple + offset}"
