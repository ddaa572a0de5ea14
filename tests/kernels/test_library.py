import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openltx.kernels import library
from openltx.kernels.linear import Linear


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``library.native`` as in a new process, with an empty cache."""
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path))
    library.native.cache_clear()
    yield library.native
    library.native.cache_clear()


def test_can_be_switched_off(fresh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OPENLTX_KERNELS", "off")
    with caplog.at_level(logging.INFO):
        assert fresh() is None
    assert "switched off" in caplog.text


def test_without_a_compiler_nothing_is_lost(fresh, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with caplog.at_level(logging.INFO):
        assert fresh() is None
    assert "no C compiler" in caplog.text


def test_a_compiler_that_fails_is_reported(fresh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'cannot do that' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with caplog.at_level(logging.INFO):
        assert fresh() is None
    assert "cannot do that" in caplog.text


@pytest.mark.skipif(library.native() is None, reason="no C compiler here")
def test_is_built_once_and_leaves_only_the_library(fresh, tmp_path: Path) -> None:
    assert fresh() is not None
    (built,) = (tmp_path / "kernels").iterdir()
    written = built.stat().st_mtime_ns
    library.native.cache_clear()
    assert fresh() is not None
    assert built.stat().st_mtime_ns == written


@pytest.mark.skipif(library.native() is None, reason="no C compiler here")
def test_a_damaged_library_in_the_cache_is_not_fatal(fresh, tmp_path: Path, monkeypatch, caplog) -> None:
    assert fresh() is not None
    (built,) = (tmp_path / "kernels").iterdir()
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "other"))
    (tmp_path / "other" / "kernels").mkdir(parents=True)
    (tmp_path / "other" / "kernels" / built.name).write_bytes(b"not a library")
    library.native.cache_clear()
    with caplog.at_level(logging.INFO):
        assert fresh() is None
    assert "cannot be loaded" in caplog.text


def test_the_package_generates_the_same_without_kernels() -> None:
    """The bundled architecture with and without the compiled kernels, in processes of their own."""
    code = """
import torch
from openltx.models.transformer import TransformerConfig, VideoTransformer
torch.manual_seed(0)
model = VideoTransformer(TransformerConfig(num_layers=2, num_heads=2, head_dim=32, caption_channels=16)).eval()
for p in model.parameters():
    torch.nn.init.normal_(p, std=0.1)
with torch.inference_mode():
    text, mask = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    v = model(torch.randn(1, 20, 128), torch.rand(1, 20), torch.rand(1, 3, 20), text, mask)
print(v.double().abs().sum().item(), v.double().square().sum().item())
"""
    results = []
    for switch in ("on", "off"):
        environment = {**os.environ, "OPENLTX_KERNELS": switch}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        results.append([float(x) for x in done.stdout.split()])
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_linear_is_a_matrix_product_and_an_activation(dtype: torch.dtype, activation) -> None:
    layer, x = Linear(40, 24, activation=activation).to(dtype), torch.randn(3, 7, 40).to(dtype)
    with torch.no_grad():
        fast = layer(x)
        exact = layer.double()(x.double())
    assert float((fast.double() - exact).norm() / exact.norm()) < {torch.float32: 1e-6, torch.bfloat16: 6e-3}[dtype]
