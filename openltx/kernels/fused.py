"""Row-wise parts of the transformer block, each in one pass over memory, with gradients.

``scale``, ``shift`` and ``gate`` are (b k d) in float32: the modulations of the k times that occur in each sample.
``rows`` (b n) says which of all b k rows each token has; None when k is 1 (one time per sample) or n (one per token).
The formulas are the functions ending in ``_formula``: what runs on accelerators and under ``torch.compile``, and what
the compiled kernels are tested against.
"""

from ctypes import c_float, c_long, c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Complex, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from openltx.kernels.library import native, usable

Rows = Int[Tensor, "b n"] | None

_KINDS = {  # (first type, second type) to the kernels' `kind`
    (torch.float32, torch.float32): 0,
    (torch.bfloat16, torch.bfloat16): 1,
    (torch.float32, torch.bfloat16): 2,
}


def norm_modulate(
    x: Float[Tensor, "b n d"], scale: Float[Tensor, "b k d"], shift: Float[Tensor, "b k d"], rows: Rows, eps: float
) -> Float[Tensor, "b n d"]:
    """RMSNorm without weight, then x (1 + scale) + shift. Under CPU autocast the result may come in bfloat16."""
    if not (usable(x) and _table(scale) and _table(shift)):
        return norm_modulate_formula(x, scale, shift, rows, eps)
    out = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
    return _NormModulate.apply(x.contiguous(), scale, shift, rows, eps, out)  # pyright: ignore[reportReturnType]


def norm_modulate_formula(x: Tensor, scale: Tensor, shift: Tensor, rows: Rows, eps: float) -> Tensor:
    """``norm_modulate`` in plain torch."""
    scale, shift = per_token(scale.to(x.dtype), rows), per_token(shift.to(x.dtype), rows)
    return F.rms_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift


def gated_add(
    h: Float[Tensor, "b n d"], x: Float[Tensor, "b n d"], gate: Float[Tensor, "b k d"], rows: Rows
) -> Float[Tensor, "b n d"]:
    """h + gate x."""
    if not (usable(h, x) and (h.dtype, x.dtype) in _KINDS and _table(gate)):
        return gated_add_formula(h, x, gate, rows)
    return _GatedAdd.apply(h.contiguous(), x.contiguous(), gate, rows)  # pyright: ignore[reportReturnType]


def gated_add_formula(h: Tensor, x: Tensor, gate: Tensor, rows: Rows) -> Tensor:
    """``gated_add`` in plain torch."""
    return h + per_token(gate.to(h.dtype), rows) * x


def norm_rotate(
    x: Float[Tensor, "b n d"],
    weight: Float[Tensor, "d"],
    rotation: Complex[Tensor, "#b n half"] | None,
    eps: float,
) -> Float[Tensor, "b n d"]:
    """RMSNorm with a weight, then each pair of neighbouring channels, as one complex number, turned by its angle."""
    if not (usable(x, weight) and (rotation is None or _dense(rotation))):
        return norm_rotate_formula(x, weight, rotation, eps)
    return _NormRotate.apply(x.contiguous(), weight, rotation, eps)  # pyright: ignore[reportReturnType]


def norm_rotate_formula(x: Tensor, weight: Tensor, rotation: Tensor | None, eps: float) -> Tensor:
    """``norm_rotate`` in plain torch."""
    x = F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps)
    return x if rotation is None else rotate(x, rotation)


def rotate(x: Float[Tensor, "b n d"], rotation: Complex[Tensor, "#b n half"]) -> Float[Tensor, "b n d"]:
    """Turn each pair of neighbouring channels, as one complex number, by its angle. Computed in float32."""
    pairs = torch.view_as_complex(rearrange(x.float(), "b n (half two) -> b n half two", two=2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def gelu(x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """GELU in its tanh form."""
    if not usable(x):
        return F.gelu(x, approximate="tanh")
    return _Gelu.apply(x.contiguous())  # pyright: ignore[reportReturnType]


def per_token(table: Float[Tensor, "b k d"], rows: Rows) -> Float[Tensor, "b _ d"]:
    """The table's row of each token; without ``rows``, the table as it is (k is 1 or n, so it broadcasts)."""
    if rows is None:
        return table
    # index_select, as its backward pass is several times faster on a CPU than that of gather or of indexing
    return table.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape)


class _NormModulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, rows: Rows, eps: float, out: torch.dtype) -> Tensor:
        y = torch.empty_like(x, dtype=out)
        b, n, d = x.shape
        kind = _KINDS[x.dtype, out]
        native().openltx_norm_modulate(  # pyright: ignore[reportOptionalMemberAccess]
            *_pointers(x, scale, shift, rows, y),
            *_longs(b * n, d, scale.stride(1), n // scale.shape[1]),
            _float(eps),
            kind,
        )
        ctx.save_for_backward(x, scale, rows)
        ctx.settings = eps, kind
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, rows = ctx.saved_tensors
        eps, kind = ctx.settings
        dy, dx, dscale, dshift = dy.contiguous(), torch.empty_like(x), _zeros(scale), _zeros(scale)
        b, n, d = x.shape
        native().openltx_norm_modulate_back(  # pyright: ignore[reportOptionalMemberAccess]
            *_pointers(dy, x, scale, rows, dx, dscale, dshift),
            *_longs(b, n, d, scale.stride(1), n // scale.shape[1]), _float(eps), kind,
        )  # fmt: skip
        return dx, dscale, dshift, None, None, None


class _GatedAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, x: Tensor, gate: Tensor, rows: Rows) -> Tensor:
        y = torch.empty_like(h)
        b, n, d = x.shape
        kind = _KINDS[h.dtype, x.dtype]
        native().openltx_gated_add(  # pyright: ignore[reportOptionalMemberAccess]
            *_pointers(h, x, gate, rows, y), *_longs(b * n, d, gate.stride(1), n // gate.shape[1]), kind
        )
        ctx.save_for_backward(x, gate, rows)
        ctx.kind = kind
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, rows = ctx.saved_tensors
        dy, dx, dgate = dy.contiguous(), torch.empty_like(x), _zeros(gate)
        b, n, d = x.shape
        native().openltx_gated_add_back(  # pyright: ignore[reportOptionalMemberAccess]
            *_pointers(dy, x, gate, rows, dx, dgate), *_longs(b, n, d, gate.stride(1), n // gate.shape[1]), ctx.kind
        )
        return dy, dx, dgate, None


class _NormRotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rotation: Tensor | None, eps: float) -> Tensor:
        y, factors = torch.empty_like(x), weight.float().contiguous()
        b, n, d = x.shape
        angles = 1 if rotation is None else rotation.shape[0] * n
        kind = _KINDS[x.dtype, x.dtype]
        native().openltx_norm_rotate(  # pyright: ignore[reportOptionalMemberAccess]
            *_pointers(x, factors, rotation, y), *_longs(b * n, d, angles), _float(eps), kind
        )
        ctx.save_for_backward(x, weight, rotation)
        ctx.settings = angles, eps, kind
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, rotation = ctx.saved_tensors
        angles, eps, kind = ctx.settings
        threads, (b, n, d) = torch.get_num_threads(), x.shape
        dy, dx, factors = dy.contiguous(), torch.empty_like(x), weight.float().contiguous()
        dweight = factors.new_zeros(threads, d)
        native().openltx_norm_rotate_back(  # pyright: ignore[reportOptionalMemberAccess]
            *_pointers(dy, x, factors, rotation, dx, dweight),
            *_longs(threads, b * n, d, angles),
            _float(eps),
            kind,
        )
        return dx, dweight.sum(0).to(weight.dtype), None, None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _Gelu.compute(None, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return _Gelu.compute(dy.contiguous(), *ctx.saved_tensors)

    @staticmethod
    def compute(dy: Tensor | None, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        native().openltx_gelu(*_pointers(dy, x, out), *_longs(x.numel()), _KINDS[x.dtype, x.dtype])  # pyright: ignore[reportOptionalMemberAccess]
        return out


def _pointers(*tensors: Tensor | None) -> list[c_void_p]:
    return [c_void_p(None if x is None else x.data_ptr()) for x in tensors]


def _longs(*numbers: int) -> list[c_long]:
    return [c_long(number) for number in numbers]


def _float(number: float) -> c_float:
    return c_float(number)


def _zeros(table: Tensor) -> Tensor:
    return table.new_zeros(table.shape)


def _table(table: Tensor) -> bool:
    """Whether the rows of a (b k d) float32 table lie at one distance from each other."""
    b, k, _ = table.shape
    evenly = b == 1 or table.stride(0) == k * table.stride(1)
    return type(table) is Tensor and table.dtype == torch.float32 and table.stride(2) == 1 and evenly


def _dense(rotation: Tensor) -> bool:
    return type(rotation) is Tensor and rotation.is_contiguous() and rotation.dtype == torch.complex64
