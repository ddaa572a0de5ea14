"""Parts of the Video-VAE on volumes (b c f h w).

On a CPU without gradients they work on channels-last memory, where a position's channels lie together: oneDNN's
convolutions reach the processor's peak there, and what stands between two convolutions is one pass over memory that
also writes the repeated edge frames, so that nothing is concatenated. Everywhere else the plain formulas run.
"""

import math
from ctypes import c_int, c_long, c_void_p

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from openltx.kernels.library import native, usable

Stride = tuple[int, int, int]


def norm_activate(
    x: Float[Tensor, "b c f h w"],
    shift: Float[Tensor, "b c"] | None = None,
    scale: Float[Tensor, "b c"] | None = None,
    edges: tuple[int, int] = (0, 0),
) -> Float[Tensor, "b c f2 h w"]:
    """SiLU(x / rms(x) (1 + scale) + shift), the rms over channels; then ``repeat_edges``."""
    if not _channels_last(x):
        return norm_activate_formula(x, shift, scale, edges)
    b, c, f, h, w = x.shape
    y = _empty(b, c, f + sum(edges), h, w, like=x)
    tables = [None if table is None else table.float().contiguous() for table in (scale, shift)]
    _call("norm_activate", (x, *tables, y), b, f, h * w, c, *edges, dtype=x.dtype)
    return y


def norm_activate_formula(x: Tensor, shift: Tensor | None, scale: Tensor | None, edges: tuple[int, int]) -> Tensor:
    """``norm_activate`` in plain torch."""
    y = pixel_norm(x)
    if shift is not None and scale is not None:
        y = y * (1 + _volume(scale, x)) + _volume(shift, x)
    return repeat_edges(F.silu(y), edges)


def pixel_norm(x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
    """x / rms(x) over the channels of each position."""
    return x * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-8).to(x.dtype)


def repeat_edges(x: Float[Tensor, "b c f h w"], edges: tuple[int, int]) -> Float[Tensor, "b c f2 h w"]:
    """The first and the last frame as many times more."""
    before, after = edges
    return torch.cat([x[:, :, :1]] * before + [x] + [x[:, :, -1:]] * after, 2) if before or after else x


def convolve(
    x: Float[Tensor, "b c f h w"], conv: nn.Conv3d, add: Float[Tensor, "b d f2 h2 w2"] | None = None
) -> Float[Tensor, "b d f2 h2 w2"]:
    """The convolution's output, plus ``add``."""
    if add is not None and _channels_last(x) and _channels_last(add) and conv.padding_mode == "zeros":
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, add, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, 1, "add", 1.0, None, [], None
        )
    y = conv(x)
    return y if add is None else y + add


def depth_to_space(
    x: Float[Tensor, "b cp f h w"],
    stride: Stride,
    skip: Float[Tensor, "b dp f h w"] | None = None,
    drop: int = 0,
) -> Float[Tensor, "b c f2 h2 w2"]:
    """Factors of ``stride``, innermost in the channels, to frames, rows and columns, less the first ``drop`` frames.

    ``skip``, narrower by a whole factor, is shuffled likewise, its channels are repeated to the width, and it is added.
    """
    if not (_channels_last(x) and (skip is None or _channels_last(skip))):
        y = shuffle(x, stride)[:, :, drop:]
        return (
            y
            if skip is None
            else y + shuffle(skip, stride)[:, :, drop:].repeat(1, x.shape[1] // skip.shape[1], 1, 1, 1)
        )
    (b, cp, f, h, w), (p1, p2, p3) = x.shape, stride
    c, narrow = cp // math.prod(stride), 1 if skip is None else skip.shape[1] // math.prod(stride)
    y = _empty(b, c, f * p1 - drop, h * p2, w * p3, like=x)
    _call("depth_to_space", (x, skip, y), b, f, h, w, c, narrow, p1, p2, p3, drop, dtype=x.dtype)
    return y


def shuffle(x: Float[Tensor, "b cp f h w"], stride: Stride) -> Float[Tensor, "b c f2 h2 w2"]:
    """``depth_to_space`` in plain torch."""
    p1, p2, p3 = stride
    return rearrange(x, "b (c p1 p2 p3) f h w -> b c (f p1) (h p2) (w p3)", p1=p1, p2=p2, p3=p3)


def space_to_depth(x: Float[Tensor, "b c f h w"], stride: Stride) -> Float[Tensor, "b cp f2 h2 w2"]:
    """The inverse of ``depth_to_space``."""
    p1, p2, p3 = stride
    y = rearrange(x, "b c (f p1) (h p2) (w p3) -> b (c p1 p2 p3) f h w", p1=p1, p2=p2, p3=p3)
    return to_fast_layout(y) if _channels_last(x) else y


def to_fast_layout(x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
    """The same volume, in channels-last memory where that is fast: on a CPU, when no gradient is wanted."""
    if usable(x) and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        return x.contiguous(memory_format=torch.channels_last_3d)
    return x


def lay_out_kernels(module: nn.Module) -> None:
    """Put a module's convolution kernels on the CPU into channels-last memory, so that no call has to turn them."""
    for parameter in module.parameters():
        if parameter.ndim == 5 and parameter.is_cpu:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def _channels_last(x: Tensor) -> bool:
    """Whether the compiled kernels can take x as it lies."""
    return (
        usable(x) and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last_3d)
    )  # fmt: skip


def _empty(*shape: int, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last_3d)


def _volume(table: Tensor, x: Tensor) -> Tensor:
    return table.to(x.dtype)[..., None, None, None]


def _call(name: str, tensors: tuple[Tensor | None, ...], *sizes: int, dtype: torch.dtype) -> None:
    pointers = [c_void_p(None if x is None else x.data_ptr()) for x in tensors]
    getattr(native(), f"openltx_{name}")(*pointers, *map(c_long, sizes), c_int(dtype == torch.bfloat16))
