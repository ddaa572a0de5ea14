"""The compiled row operations against their formulas in float64, forward and backward."""

import pytest
import torch
from torch import Tensor

from openltx.kernels import fused
from openltx.kernels.library import native

pytestmark = pytest.mark.skipif(native() is None, reason="no C compiler here: only the plain formulas run")

B, N, D = 3, 14, 48
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
ROWS = pytest.mark.parametrize("k", [1, 2, N], ids=["a time per sample", "two times", "a time per token"])


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_()


def rows_for(k: int) -> Tensor | None:
    return torch.randint(0, k, (B, N)) + k * torch.arange(B)[:, None] if k == 2 else None


def tables(k: int, count: int) -> Tensor:
    """Modulations as the block has them: slices of one table, (b k count d)."""
    return draw(B, k, count, D)


def relative(a: Tensor, exact: Tensor) -> float:
    return float(((a.double() - exact).norm() / exact.norm()).detach())


def check(fast, formula, inputs: list[Tensor], tolerance: float) -> None:
    """Values and gradients of ``fast`` against ``formula`` on float64 copies."""
    exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
    got, exact = fast(*inputs), formula(*exact_inputs)
    assert relative(got, exact) < tolerance
    weights = torch.randn(got.shape, dtype=torch.float64)
    got_gradients = torch.autograd.grad((got.double() * weights).sum(), inputs)
    for g, e in zip(got_gradients, torch.autograd.grad((exact * weights).sum(), exact_inputs), strict=True):
        assert relative(g, e) < tolerance


@DTYPES
@ROWS
def test_norm_modulate(dtype: torch.dtype, k: int) -> None:
    rows = rows_for(k)

    def fast(x, table):
        return fused.norm_modulate(x, *table.unbind(2), rows, 1e-6)

    def formula(x, table):
        return fused.norm_modulate_formula(x, *table.unbind(2), rows, 1e-6)

    check(fast, formula, [draw(B, N, D, dtype=dtype), tables(k, 2)], TOLERANCE[dtype])


@DTYPES
@ROWS
def test_gated_add(dtype: torch.dtype, k: int) -> None:
    rows = rows_for(k)
    inputs = [draw(B, N, D, dtype=dtype), draw(B, N, D, dtype=dtype), tables(k, 1)]

    def fast(h, x, table):
        return fused.gated_add(h, x, table[:, :, 0], rows)

    def formula(h, x, table):
        return fused.gated_add_formula(h, x, table[:, :, 0], rows)

    check(fast, formula, inputs, TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("angles", [None, 1, B], ids=["no rotation", "shared angles", "angles of each sample"])
def test_norm_rotate(dtype: torch.dtype, angles: int | None) -> None:
    rotation = None if angles is None else torch.polar(torch.ones(angles, N, D // 2), 6 * torch.rand(angles, N, D // 2))

    def fast(x, weight):
        return fused.norm_rotate(x, weight, rotation, 1e-5)

    def formula(x, weight):  # `norm_rotate_formula` turns in float32; here the same in float64
        x = torch.nn.functional.rms_norm(x, (D,), weight, 1e-5)
        if rotation is None:
            return x
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * rotation.to(torch.complex128)).flatten(-2)

    check(fast, formula, [draw(B, N, D, dtype=dtype), draw(D)], TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 700, 3)])
def test_gelu(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (2 * torch.randn(shape)).to(dtype).requires_grad_()  # beyond about -7 the formula rounds to 0: the next test
    check(fused.gelu, lambda x: torch.nn.functional.gelu(x, approximate="tanh"), [x], TOLERANCE[dtype])


def test_gelu_far_from_zero_and_of_nan() -> None:
    x = torch.tensor([-1e30, -300.0, 300.0, 1e30, torch.nan])
    torch.testing.assert_close(fused.gelu(x)[:4], torch.tensor([0.0, 0.0, 300.0, 1e30]), atol=1e-6, rtol=1e-6)
    assert fused.gelu(x)[4].isnan()


def test_autocast_takes_float32_in_and_gives_bfloat16_out() -> None:
    x, table = draw(B, N, D), tables(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        y = fused.norm_modulate(x, *table.unbind(2), None, 1e-6)
    assert y.dtype == torch.bfloat16
    exact = fused.norm_modulate_formula(x.double(), *table.double().unbind(2), None, 1e-6)
    assert relative(y, exact) < TOLERANCE[torch.bfloat16]
    (gradient,) = torch.autograd.grad(y.float().sum(), x)
    (expected,) = torch.autograd.grad(exact.sum(), x)
    assert relative(gradient, expected.double()) < TOLERANCE[torch.bfloat16]


def test_a_gated_bfloat16_branch_adds_to_a_float32_stream() -> None:
    h, x, gate = draw(B, N, D), draw(B, N, D, dtype=torch.bfloat16), tables(1, 1)[:, :, 0]
    y = fused.gated_add(h, x, gate, None)
    assert y.dtype == torch.float32
    assert relative(y, fused.gated_add_formula(h.double(), x.double(), gate.double(), None)) < 2e-6


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    x, table = torch.randn(B, 400, D), torch.randn(B, 1, 2, D)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(fused.norm_modulate(x, *table.unbind(2), None, 1e-6))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
