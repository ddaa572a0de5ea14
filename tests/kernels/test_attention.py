"""The compiled attention against the formula in float64."""

import pytest
import torch
from torch import Tensor

from openltx.kernels import attention as module
from openltx.kernels.attention import attention
from openltx.kernels.library import computes_in_bfloat16

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 4e-3}


def formula(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    q, k, v = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias[:, None, None].double()
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def relative(a: Tensor, exact: Tensor) -> float:
    return float((a.double() - exact).norm() / exact.norm())


@DTYPES
@pytest.mark.parametrize(
    ("b", "n", "l", "heads", "channels"),
    [
        (1, 1, 1, 1, 32),
        (2, 7, 13, 3, 64),
        (1, 200, 1100, 2, 64),
        (2, 130, 64, 1, 128),
        (1, 97, 65, 2, 96),
        (3, 5, 9, 2, 8),
    ],
)
def test_agrees_with_the_formula(b: int, n: int, l: int, heads: int, channels: int, dtype: torch.dtype) -> None:  # noqa: E741 (the axis letter of text tokens)
    query, key, value = (torch.randn(b, m, heads * channels).to(dtype) for m in (n, l, l))
    assert relative(attention(query, key, value, heads), formula(query, key, value, heads)) < TOLERANCE[dtype]


@DTYPES
def test_takes_slices_of_one_projection_and_large_logits(dtype: torch.dtype) -> None:
    query, key, value = (8 * torch.randn(2, 90, 3 * 128)).to(dtype).chunk(3, -1)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 1e-2}[
        dtype
    ]  # logits around 500: float32 has 5 digits behind them
    assert relative(attention(query, key, value, 2), formula(query, key, value, 2)) < tolerance


@DTYPES
def test_a_bias_hides_padded_keys(dtype: torch.dtype) -> None:
    query, key, value = (torch.randn(2, m, 64).to(dtype) for m in (5, 70, 70))
    bias = torch.zeros(2, 70)
    bias[0, 40:] = bias[1, 3:] = -10000.0
    got = attention(query, key, value, 1, bias)
    assert relative(got, formula(query, key, value, 1, bias)) < TOLERANCE[dtype]
    assert relative(got[:1], formula(query[:1], key[:1, :40], value[:1, :40], 1)) < TOLERANCE[dtype]


@DTYPES
@pytest.mark.parametrize(
    ("b", "n", "l", "heads", "channels"),
    [
        (2, 6, 9, 2, 32),
        (1, 1, 1, 1, 64),
        (2, 112, 28, 3, 64),
        (1, 67, 130, 2, 96),
        (3, 5, 9, 2, 8),
        (1, 600, 500, 1, 32),
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_agree_with_the_formula(
    b: int,
    n: int,
    l: int,  # noqa: E741 (the axis letter of text tokens)
    heads: int,
    channels: int,
    padded: bool,
    dtype: torch.dtype,
) -> None:
    inputs = [torch.randn(b, m, heads * channels).to(dtype).requires_grad_() for m in (n, l, l)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    bias = torch.zeros(b, l)
    bias[-1, (l + 1) // 2 :] = -10000.0
    weights = torch.randn(b, n, heads * channels).to(dtype)
    got = torch.autograd.grad(attention(*inputs, heads, bias if padded else None), inputs, weights)
    expected = torch.autograd.grad(formula(*exact, heads, bias if padded else None), exact, weights.double())
    for g, e in zip(got, expected, strict=True):
        assert float((g.double() - e).norm()) < 4 * TOLERANCE[dtype] * float(e.norm()) + 1e-7


@pytest.mark.skipif(not computes_in_bfloat16(), reason="no compiled attention here: only torch's runs")
@pytest.mark.parametrize(
    ("n", "gradient", "compiled"), [(4, False, 1), (4, True, 1), (1000, False, 1), (1000, True, 0)]
)
def test_the_kernel_runs_unless_a_gradient_of_long_sequences_is_wanted(
    monkeypatch: pytest.MonkeyPatch, n: int, gradient: bool, compiled: int
) -> None:
    called = []
    original = module._call
    monkeypatch.setattr(module, "_call", lambda *a: called.append(a[0]) or original(*a))
    x = torch.randn(1, n, 64, requires_grad=gradient)
    attention(x, x, x, 1)
    assert called == ["attention"] * compiled
