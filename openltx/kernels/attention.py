"""Multi-head attention with the heads side by side in the channels: softmax(q k^T / sqrt(head_dim) + bias) v.

torch's fused attention runs at a quarter of the rate of a matrix product on a CPU, and worse with gradients in
bfloat16, so there are three ways: the compiled kernels (AVX-512; with gradients for short sequences), matrix products
(CPU, bfloat16, with a gradient), and ``F.scaled_dot_product_attention`` everywhere else.
"""

import math
from collections.abc import Sequence
from ctypes import c_float, c_int, c_long, c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from openltx.kernels.library import computes_in_bfloat16, native, usable

LONGEST_WITH_GRADIENT = 512 * 512  # logits of a head, which the backward kernel holds in full


def attention(
    query: Float[Tensor, "b n d"],
    key: Float[Tensor, "b l d"],
    value: Float[Tensor, "b l d"],
    heads: int,
    bias: Float[Tensor, "b l"] | None = None,
) -> Float[Tensor, "b n d"]:
    """Each query's mean of the values, weighted by its similarity to the keys; ``bias`` is added to the logits."""
    gradient = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    short = query.shape[1] * key.shape[1] <= LONGEST_WITH_GRADIENT
    if (short or not gradient) and _fits_kernel(query, key, value, heads):
        return _Compiled.apply(query, key, value, heads, bias)  # pyright: ignore[reportReturnType]
    q, k, v = (rearrange(x, "b n (heads c) -> b heads n c", heads=heads) for x in (query, key, value))
    logit_bias = None if bias is None else bias[:, None, None].to(q.dtype)
    if gradient and q.is_cpu and q.dtype == torch.bfloat16:
        out = _matrix_products(q, k, v, logit_bias)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=logit_bias)
    return rearrange(out, "b heads n c -> b n (heads c)")


def _matrix_products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Fastest for the short clips of training; holds the logits."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    logits = logits if bias is None else logits + bias
    return logits.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None) -> Tensor:
        out = query.new_empty(query.shape)
        if bias is not None:
            bias = (bias.float() * math.log2(math.e)).contiguous()
        _call("attention", (query, key, value, out, bias), query, key, value, heads)
        ctx.save_for_backward(query, key, value, bias)
        ctx.heads = heads
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias = ctx.saved_tensors
        dq, dk, dv = (x.new_empty(x.shape) for x in (query, key, value))
        tensors = (query, key, value, gradient.contiguous(), bias, dq, dk, dv)
        _call("attention_back", tensors, query, key, value, ctx.heads)
        return dq, dk, dv, None, None


def _call(name: str, tensors: Sequence[Tensor | None], query: Tensor, key: Tensor, value: Tensor, heads: int) -> None:
    b, n, d = query.shape
    sizes = (b, n, key.shape[1], heads, d // heads, query.stride(1), key.stride(1), value.stride(1))
    getattr(native(), f"openltx_{name}")(
        *(c_void_p(x if x is None else x.data_ptr()) for x in tensors), *map(c_long, sizes),
        c_float((d // heads) ** -0.5), c_int(query.dtype == torch.bfloat16), c_long(torch.get_num_threads()),
    )  # fmt: skip


def _fits_kernel(query: Tensor, key: Tensor, value: Tensor, heads: int) -> bool:
    """Rows of whole words, one type, heads of a multiple of 32 channels, an instruction set that has the products."""
    if query.shape[-1] // heads % 32 or not usable(query, key, value) or not key.dtype == value.dtype == query.dtype:
        return False
    if not hasattr(native(), "openltx_attention") or (query.dtype == torch.bfloat16 and not computes_in_bfloat16()):
        return False
    return all(
        x.stride(2) == 1 and x.stride(0) == x.shape[1] * x.stride(1) and x.stride(1) % 2 == 0
        for x in (query, key, value)
    )
