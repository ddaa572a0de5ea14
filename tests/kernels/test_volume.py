"""The channels-last operations of the VAE against their plain formulas in float64."""

import pytest
import torch
from torch import Tensor, nn

from openltx.kernels import volume
from openltx.kernels.library import native

pytestmark = pytest.mark.skipif(native() is None, reason="no C compiler here: only the plain formulas run")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3}


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    x = torch.randn(shape).to(dtype)
    return x.contiguous(memory_format=torch.channels_last_3d) if len(shape) == 5 else x


def agrees(got: Tensor, exact: Tensor) -> None:
    assert got.shape == exact.shape
    assert got.is_contiguous(memory_format=torch.channels_last_3d)
    assert float((got.double() - exact).norm() / exact.norm()) < TOLERANCE[got.dtype]


@DTYPES
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("edges", [(0, 0), (2, 0), (1, 1)])
@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_norm_activate(dtype: torch.dtype, modulated: bool, edges: tuple[int, int], frames: int) -> None:
    x = 3 * draw(2, 20, frames, 3, 5, dtype=dtype)
    tables = [draw(2, 20, dtype=dtype) for _ in range(2)] if modulated else [None, None]
    exact = volume.norm_activate_formula(x.double(), *(t if t is None else t.double() for t in tables), edges)
    agrees(volume.norm_activate(x, *tables, edges), exact)


@torch.no_grad()
def test_silu_of_extreme_values_and_nan() -> None:
    x = draw(1, 1, 1, 1, 6, dtype=torch.float32)
    x.view(-1).copy_(torch.tensor([-1e4, -1.0, 0.0, 1e4, torch.nan, 1.0]))
    got = volume.norm_activate(x, torch.tensor([[-3.0]]), torch.tensor([[200.0]])).flatten()
    torch.testing.assert_close(got, volume.norm_activate_formula(
        x, torch.tensor([[-3.0]]), torch.tensor([[200.0]]), (0, 0)).flatten(), equal_nan=True)  # fmt: skip


@DTYPES
@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("repeats", [None, 1, 4])
@torch.no_grad()
def test_depth_to_space(dtype: torch.dtype, stride: tuple[int, int, int], repeats: int | None) -> None:
    x = draw(2, 64, 3, 2, 5, dtype=dtype)
    skip = None if repeats is None else draw(2, 64 // repeats, 3, 2, 5, dtype=dtype)
    drop = stride[0] - 1
    exact = volume.shuffle(x.double(), stride)[:, :, drop:]
    if skip is not None:
        exact = exact + volume.shuffle(skip.double(), stride)[:, :, drop:].repeat(1, repeats, 1, 1, 1)
    agrees(volume.depth_to_space(x, stride, skip, drop), exact)


@DTYPES
@torch.no_grad()
def test_convolve_adds(dtype: torch.dtype) -> None:
    conv = nn.Conv3d(16, 24, 3, padding=(0, 1, 1)).to(dtype)
    x, add = draw(2, 16, 5, 4, 6, dtype=dtype), draw(2, 24, 3, 4, 6, dtype=dtype)
    exact = nn.functional.conv3d(x.double(), conv.weight.double(), conv.bias.double(), padding=(0, 1, 1)) + add.double()
    kept = add.clone()
    agrees(volume.convolve(x, conv, add), exact)
    assert torch.equal(add, kept)


def test_gradients_take_the_plain_path() -> None:
    x = draw(1, 8, 2, 2, 2, dtype=torch.float32).requires_grad_()
    volume.norm_activate(x, edges=(2, 0)).sum().backward()
    assert x.grad is not None
