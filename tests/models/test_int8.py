"""Eight-bit linear layers: the kernel computes the formula, and the formula is close to the layer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openltx.kernels.linear import Linear
from openltx.models.int8 import Int8Linear, _supported, fake_quantize, quantize, quantize_weight
from openltx.models.transformer import TransformerConfig, VideoTransformer

CONFIG = TransformerConfig(num_layers=2, num_heads=2, head_dim=32, caption_channels=16)


def relative(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.double() - exact).norm() / exact.norm())


def model() -> VideoTransformer:
    torch.manual_seed(0)
    transformer = VideoTransformer(CONFIG).eval()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.5)
    return transformer


def inputs() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 5, dtype=torch.bool)
    return (
        torch.randn(2, 30, 128, generator=g), torch.tensor([0.3, 0.8]), torch.rand(2, 3, 30, generator=g),
        torch.randn(2, 5, 16, generator=g), mask,
    )  # fmt: skip


@pytest.mark.skipif(not _supported(), reason="no compiled int8 kernel on this machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize(("rows", "c", "d"), [(1, 4, 1), (7, 64, 64), (25, 96, 130), (300, 320, 1280)])
@torch.no_grad()
def test_the_kernel_computes_the_formula(dtype, activation, rows: int, c: int, d: int) -> None:
    layer = Linear(c, d)
    x = (torch.randn(rows, c) + 0.5).to(dtype)
    weight, scale = quantize_weight(layer.weight)
    exact = fake_quantize(x.double()) @ (weight.double() * scale[:, None].double()).T + layer.bias.double()
    exact = torch.nn.functional.gelu(exact, approximate="tanh") if activation == "gelu" else exact
    got = Int8Linear(weight, scale, layer.bias, activation)(x)
    assert got.dtype == dtype
    assert relative(got, exact) < {torch.float32: 3e-4, torch.bfloat16: 5e-3}[dtype]


def test_rounding_is_to_the_nearest_of_256_values() -> None:
    x = torch.tensor([[-1.0, 0.0, 0.3, 2.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0], [-127.5, 127.5, 3.0, 0.0]])
    rounded = fake_quantize(x)
    assert (rounded - x)[:3].abs().max() <= 0.5 * 3 / 255 + 1e-6
    assert rounded[0, 1] == 0
    assert torch.equal(rounded[2], x[2])
    assert (rounded[3] - x[3]).abs().max() <= 0.5  # the zero lies half way: one end is cut, none wraps around


@torch.no_grad()
def test_a_quantised_transformer_is_close_to_the_original() -> None:
    exact = model()(*inputs())
    got = quantize(model())(*inputs())
    assert 0 < relative(got, exact.double()) < 0.02


def test_the_cache_is_read_back_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "int8.safetensors"
    with torch.no_grad():
        first = quantize(model(), cache)(*inputs())
        assert torch.equal(quantize(model(), cache)(*inputs()), first)
        cache.write_bytes(cache.read_bytes()[:1000])
        assert torch.equal(quantize(model(), cache)(*inputs()), first)
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    assert cache.stat().st_size > 1000


def test_without_kernels_the_same_numbers_come_from_the_formula() -> None:
    code = (
        "import torch; from openltx.models.int8 import *; torch.manual_seed(0);"
        "l = Linear(96, 70, activation='gelu'); x = torch.randn(9, 96);"
        "m = Int8Linear(*quantize_weight(l.weight), l.bias, 'gelu');"
        "print(m.packed, m(x).detach().double().square().sum().item())"
    )
    results = []
    for switch in ("on", "off"):
        environment = {**os.environ, "OPENLTX_KERNELS": switch}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        results.append(done.stdout.split())
    assert results[1][0] == "False"
    assert float(results[0][1]) == pytest.approx(float(results[1][1]), rel=2e-4)
