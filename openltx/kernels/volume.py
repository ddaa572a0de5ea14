"""Parts of the Video-VAE on volumes (b c f h w).

On a CPU they work on channels-last memory, where a position's channels lie together: oneDNN's convolutions reach the
processor's peak there, and what stands between two convolutions is one pass over memory that also writes the repeated
edge frames, so that nothing is concatenated; forward and backward. Everywhere else the plain formulas run.
"""

import math
from ctypes import c_int, c_long, c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from openltx.kernels.library import computes_in_bfloat16, native, usable

Stride = tuple[int, int, int]

KERNEL_BYTES = 2**24
"""A convolution copies or transforms its kernel at every call: of larger ones, a part of the outputs at a time."""

WINOGRAD_PIXELS = 384
"""From so many positions in a frame on, minimal filtering is worth the transformation of its kernel."""


def norm_activate(
    x: Float[Tensor, "b c f h w"],
    shift: Float[Tensor, "b c"] | None = None,
    scale: Float[Tensor, "b c"] | None = None,
    edges: tuple[int, int] = (0, 0),
) -> Float[Tensor, "b c f2 h w"]:
    """SiLU(x / rms(x) (1 + scale) + shift), the rms over channels; then ``repeat_edges``."""
    if not _channels_last(x):
        return norm_activate_formula(x, shift, scale, edges)
    return _NormActivate.apply(x, shift, scale, edges)  # pyright: ignore[reportReturnType]


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
    """The convolution's output, plus ``add``; without gradients by minimal filtering, where that pays."""
    if is_minimal(x, conv) and (add is None or _channels_last(add)):
        return _winograd(x, conv, add)
    if x.is_cpu and not torch.is_grad_enabled() and (parts := parts_of(conv.weight)) > 1:
        biases = (None,) * parts if conv.bias is None else conv.bias.chunk(parts)
        pieces = zip(conv.weight.chunk(parts), biases, strict=True)
        y = torch.cat([conv._conv_forward(x, kernel, bias) for kernel, bias in pieces], 1)
        return y if add is None else y.add_(add)
    fused = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu") and conv.padding_mode == "zeros"
    if add is not None and fused and _channels_last(x) and _channels_last(add):
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, add, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, 1, "add", 1.0, None, [], None
        )
    y = conv(x)
    return y if add is None else y + add


def is_minimal(x: Tensor, conv: nn.Conv3d) -> bool:
    """Whether ``convolve`` does this by minimal filtering: where our kernel can, and sooner than oneDNN's direct one.

    The number of frames does not count, so that a clip in pieces has the numbers of the whole.
    """
    n, c, *taps = conv.weight.shape
    place = (conv.padding_mode, conv.padding, conv.stride, conv.dilation, conv.groups)
    return (
        not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and taps[1:] == [3, 3]
        and taps[0] <= 3
        and place == ("zeros", (0, 1, 1), (1, 1, 1), (1, 1, 1), 1)
        and c % 32 == 0
        and n % 64 == 0
        and x.shape[3] * x.shape[4] >= WINOGRAD_PIXELS
        and _channels_last(x)
        and usable(conv.weight)
        and conv.weight.dtype == x.dtype
        and hasattr(native(), "openltx_winograd")
        and (x.dtype == torch.float32 or computes_in_bfloat16())
    )


def parts_of(kernel: Tensor) -> int:
    """Into how many equal parts, a power of two, a kernel is cut so that none has more than ``KERNEL_BYTES``."""
    return 1 << max(0, (kernel.nbytes - 1) // KERNEL_BYTES).bit_length()


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
    return _DepthToSpace.apply(x, skip, stride, drop)  # pyright: ignore[reportReturnType]


def shuffle(x: Float[Tensor, "b cp f h w"], stride: Stride) -> Float[Tensor, "b c f2 h2 w2"]:
    """``depth_to_space`` in plain torch."""
    p1, p2, p3 = stride
    return rearrange(x, "b (c p1 p2 p3) f h w -> b c (f p1) (h p2) (w p3)", p1=p1, p2=p2, p3=p3)


def space_to_depth(x: Float[Tensor, "b c f h w"], stride: Stride) -> Float[Tensor, "b cp f2 h2 w2"]:
    """The inverse of ``depth_to_space``."""
    if _channels_last(x):
        return _SpaceToDepth.apply(x, stride)  # pyright: ignore[reportReturnType]
    p1, p2, p3 = stride
    return rearrange(x, "b c (f p1) (h p2) (w p3) -> b (c p1 p2 p3) f h w", p1=p1, p2=p2, p3=p3)


def to_fast_layout(x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
    """The same volume, in channels-last memory where that is fast: on a CPU with the compiled kernels."""
    return x.contiguous(memory_format=torch.channels_last_3d) if usable(x) else x


def lay_out_kernels(module: nn.Module) -> None:
    """Put a module's convolution kernels on the CPU into channels-last memory, so that no call has to turn them."""
    for parameter in module.parameters():
        if parameter.ndim == 5 and parameter.is_cpu:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


class _NormActivate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor | None, scale: Tensor | None, edges: tuple[int, int]) -> Tensor:
        b, c, f, h, w = x.shape
        y = _empty(b, c, f + sum(edges), h, w, like=x)
        tables = [None if table is None else table.float().contiguous() for table in (scale, shift)]
        _call("norm_activate", (x, *tables, y), b, f, h * w, c, *edges, dtype=x.dtype)
        ctx.save_for_backward(x, shift, scale)
        ctx.edges = edges
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, scale = ctx.saved_tensors
        (b, c, f, h, w), parts = x.shape, torch.get_num_threads()
        dx, dy = torch.empty_like(x), dy.contiguous(memory_format=torch.channels_last_3d)
        tables = [None if table is None else table.float().contiguous() for table in (scale, shift)]
        shares = torch.zeros(parts, b, 2, c)
        _call("norm_activate_back", (dy, x, *tables, dx, shares), b, f, h * w, c, *ctx.edges, parts, dtype=x.dtype)
        if shift is None or scale is None:
            return dx, None, None, None
        dscale, dshift = shares.sum(0).unbind(1)
        return dx, dshift.to(shift.dtype), dscale.to(scale.dtype), None


class _DepthToSpace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor | None, stride: Stride, drop: int) -> Tensor:
        (b, cp, f, h, w), (p1, p2, p3) = x.shape, stride
        c, narrow = cp // math.prod(stride), 1 if skip is None else skip.shape[1] // math.prod(stride)
        y = _empty(b, c, f * p1 - drop, h * p2, w * p3, like=x)
        _call("depth_to_space", (x, skip, y), b, f, h, w, c, narrow, p1, p2, p3, drop, dtype=x.dtype)
        ctx.settings = stride, drop, 0 if skip is None else cp // skip.shape[1]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        stride, drop, repeats = ctx.settings
        dx = _gather(dy.contiguous(memory_format=torch.channels_last_3d), stride, drop)
        dskip = dx.movedim(1, -1).unflatten(-1, (repeats, -1)).sum(-2).movedim(-1, 1) if repeats else None
        return dx, dskip, None, None


class _SpaceToDepth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: Stride) -> Tensor:
        ctx.stride = stride
        return _gather(x, stride, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return depth_to_space(dy.contiguous(memory_format=torch.channels_last_3d), ctx.stride), None


def _gather(x: Tensor, stride: Stride, missing: int) -> Tensor:
    """``space_to_depth`` of x behind ``missing`` frames of zeros."""
    (b, c, frames, height, width), (p1, p2, p3) = x.shape, stride
    f, h, w = (frames + missing) // p1, height // p2, width // p3
    y = _empty(b, c * math.prod(stride), f, h, w, like=x)
    _call("space_to_depth", (x, y), b, f, h, w, c, p1, p2, p3, missing, dtype=x.dtype)
    return y


def _winograd(x: Tensor, conv: nn.Conv3d, add: Tensor | None) -> Tensor:
    (b, c, f, h, w), (n, _, taps, *_) = x.shape, conv.weight.shape
    kernel = conv.weight.contiguous(memory_format=torch.channels_last_3d)
    y = _empty(b, n, f - taps + 1, h, w, like=x)
    part = min(n, max(1, KERNEL_BYTES // (16 * taps * c * x.element_size() * 64)) * 64)
    scratch = torch.empty(16 * taps * c * part, dtype=x.dtype)
    bias = None if conv.bias is None else conv.bias.float()
    _call("winograd", (x, kernel, bias, add, scratch, y), b, f - taps + 1, h, w, c, n, taps, part, dtype=x.dtype)
    return y


def _channels_last(x: Tensor) -> bool:
    """Whether the compiled kernels can take x as it lies."""
    return usable(x) and x.is_contiguous(memory_format=torch.channels_last_3d)


def _empty(*shape: int, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last_3d)


def _volume(table: Tensor, x: Tensor) -> Tensor:
    return table.to(x.dtype)[..., None, None, None]


def _call(name: str, tensors: tuple[Tensor | None, ...], *sizes: int, dtype: torch.dtype) -> None:
    pointers = [c_void_p(None if x is None else x.data_ptr()) for x in tensors]
    getattr(native(), f"openltx_{name}")(*pointers, *map(c_long, sizes), c_int(dtype == torch.bfloat16))
