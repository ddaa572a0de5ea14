"""The channels-last operations of the VAE against their plain formulas in float64."""

from copy import deepcopy

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from openltx.kernels import volume
from openltx.kernels.library import native
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder

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


@DTYPES
@pytest.mark.parametrize("with_add", [False, True])
@torch.no_grad()
def test_a_large_kernel_is_used_in_parts(dtype: torch.dtype, with_add: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv3d(16, 24, 3, padding=(0, 1, 1), padding_mode="replicate" if with_add else "zeros").to(dtype)
    x, add = draw(2, 16, 5, 4, 6, dtype=dtype), draw(2, 24, 3, 4, 6, dtype=dtype) if with_add else None
    exact = deepcopy(conv).double()(x.double()) + (0 if add is None else add.double())
    monkeypatch.setattr(volume, "KERNEL_BYTES", conv.weight.nbytes // 3)
    assert volume.parts_of(conv.weight) == 4
    agrees(volume.convolve(x, conv, add), exact)


@pytest.mark.skipif(not hasattr(native(), "openltx_winograd"), reason="minimal filtering needs AVX-512")
@DTYPES
@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("with_add", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 12), (14, 17)])
@torch.no_grad()
def test_minimal_filtering(
    dtype: torch.dtype, taps: int, with_add: bool, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = nn.Conv3d(96, 192, (taps, 3, 3), padding=(0, 1, 1)).to(dtype)
    x = draw(2, 96, 3 + taps, height, width, dtype=dtype)
    add = draw(2, 192, 4, height, width, dtype=dtype) if with_add else None
    exact = deepcopy(conv).double()(x.double()) + (0 if add is None else add.double())
    monkeypatch.setattr(volume, "WINOGRAD_PIXELS", 0)
    assert volume.is_minimal(x, conv)
    agrees(volume.convolve(x, conv, add), exact)
    monkeypatch.setattr(volume, "KERNEL_BYTES", 16 * taps * 96 * 128 * dtype.itemsize)
    agrees(volume.convolve(x, conv, add), exact)


@torch.no_grad()
def test_minimal_filtering_is_left_to_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(1, 64, 4, 20, 20, dtype=torch.float32)
    others = [
        nn.Conv3d(64, 48, 3, padding=(0, 1, 1)),
        nn.Conv3d(64, 64, 3, padding=(0, 1, 1), padding_mode="replicate"),
        nn.Conv3d(64, 64, 3, padding=(0, 1, 1), stride=(2, 1, 1)),
        nn.Conv3d(64, 64, 1),
    ]
    good = nn.Conv3d(64, 64, 3, padding=(0, 1, 1))
    assert volume.is_minimal(x, good) == hasattr(native(), "openltx_winograd")
    assert not any(volume.is_minimal(x, conv) for conv in others)
    assert not volume.is_minimal(x.contiguous(), good)
    assert not volume.is_minimal(x[..., :10, :10].contiguous(memory_format=torch.channels_last_3d), good)
    assert not volume.is_minimal(x.bfloat16(), good)
    with torch.enable_grad():
        assert not volume.is_minimal(x, good)
    monkeypatch.setattr(volume, "computes_in_bfloat16", lambda: False)
    assert not volume.is_minimal(x.bfloat16(), good.bfloat16())


def gradients_agree(fast, formula, inputs: list[Tensor]) -> None:
    """Gradients of ``fast`` against those of ``formula`` on float64 copies."""
    exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
    inputs = [x.requires_grad_() for x in inputs]
    got, exact = fast(*inputs), formula(*exact_inputs)
    weights = torch.randn(got.shape, dtype=torch.float64)
    theirs = torch.autograd.grad((exact * weights).sum(), exact_inputs)
    for g, e in zip(torch.autograd.grad((got.double() * weights).sum(), inputs), theirs, strict=True):
        assert g.shape == e.shape
        assert float((g.double() - e).norm() / e.norm()) < TOLERANCE[got.dtype]


@DTYPES
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("edges", [(0, 0), (2, 0), (1, 1)])
@pytest.mark.parametrize("frames", [1, 3])
def test_gradients_of_norm_activate(dtype: torch.dtype, modulated: bool, edges: tuple[int, int], frames: int) -> None:
    inputs = [3 * draw(2, 20, frames, 3, 5, dtype=dtype)]
    inputs += [draw(2, 20, dtype=torch.float32) for _ in range(2)] if modulated else []

    def fast(x, shift=None, scale=None):
        return volume.norm_activate(x, shift, scale, edges)

    def formula(x, shift=None, scale=None):
        return volume.norm_activate_formula(x, shift, scale, edges)

    gradients_agree(fast, formula, inputs)


@DTYPES
@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("repeats", [None, 1, 4])
def test_gradients_of_depth_to_space(dtype: torch.dtype, stride: tuple[int, int, int], repeats: int | None) -> None:
    inputs = [draw(2, 64, 3, 2, 5, dtype=dtype)]
    inputs += [] if repeats is None else [draw(2, 64 // repeats, 3, 2, 5, dtype=dtype)]
    drop = stride[0] - 1

    def formula(x, skip=None):
        y = volume.shuffle(x, stride)[:, :, drop:]
        return y if skip is None else y + volume.shuffle(skip, stride)[:, :, drop:].repeat(1, repeats, 1, 1, 1)

    gradients_agree(lambda x, skip=None: volume.depth_to_space(x, stride, skip, drop), formula, inputs)


@DTYPES
@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 1, 1), (1, 2, 2)])
def test_space_to_depth_undoes_and_has_its_gradient(dtype: torch.dtype, stride: tuple[int, int, int]) -> None:
    x = draw(2, 6, 4, 2, 6, dtype=dtype)
    with torch.no_grad():
        folded = volume.space_to_depth(x, stride)
        agrees(folded, rearrange(x.double(), "b c (f p) (h q) (w r) -> b (c p q r) f h w", **sizes(stride)))
        assert torch.equal(volume.depth_to_space(folded, stride), x)
    gradients_agree(
        lambda x: volume.space_to_depth(x, stride),
        lambda x: rearrange(x, "b c (f p) (h q) (w r) -> b (c p q r) f h w", **sizes(stride)),
        [x],
    )


def sizes(stride: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip("pqr", stride, strict=True))


def test_a_step_of_the_vae_has_the_gradients_of_the_plain_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae = VideoAutoencoder(vae_preset("0.9.5", base_channels=8, latent_channels=16))
    video = torch.rand(1, 3, 17, 64, 64) * 2 - 1
    found = []
    for switch in (True, False):
        if not switch:
            monkeypatch.setattr(volume, "usable", lambda *_: False)
        vae.zero_grad()
        vae.decode(vae.encode(video), 0.0).square().mean().backward()
        found.append([parameter.grad.clone() for parameter in vae.parameters() if parameter.grad is not None])
    assert len(found[0]) == len(found[1]) > 50
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=2e-3, atol=1e-5 + 1e-4 * float(plain.abs().max()))
