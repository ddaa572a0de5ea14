"""The latent upsampler: its formula, its sizes, and what each kind of it sees."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from openltx.errors import CheckpointError
from openltx.geometry import LatentShape
from openltx.models.upsampler import LatentUpsampler, UpsamplerConfig

KINDS = {
    "space": {"spatial_upsample": True, "temporal_upsample": False},
    "time": {"spatial_upsample": False, "temporal_upsample": True},
    "space and time": {"spatial_upsample": True, "temporal_upsample": True},
    "space, 2D": {"spatial_upsample": True, "temporal_upsample": False, "dims": 2},
}


def tiny(kind: str) -> LatentUpsampler:
    config = UpsamplerConfig(in_channels=4, mid_channels=32, num_blocks_per_stage=2, **KINDS[kind])
    network = LatentUpsampler(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape) * fan_in**-0.5)
    return network


def by_the_book(network: LatentUpsampler, z: torch.Tensor) -> torch.Tensor:
    """official.md's description, one operation after the other; every shuffle by its indices."""
    weights, config = network.state_dict(), network.config

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (F.conv2d if kernel.ndim == 4 else F.conv3d)(x, kernel, bias, padding=1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.group_norm(x, 32, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def stage(x: torch.Tensor, name: str) -> torch.Tensor:
        for number in range(config.num_blocks_per_stage):
            block = f"{name}.{number}"
            y = F.silu(norm(conv(x, f"{block}.conv1"), f"{block}.norm1"))
            x = F.silu(norm(conv(y, f"{block}.conv2"), f"{block}.norm2") + x)
        return x

    def network_of(x: torch.Tensor) -> torch.Tensor:
        x = stage(F.silu(norm(conv(x, "initial_conv"), "initial_norm")), "res_blocks")
        if not config.temporal_upsample and config.dims == 3:
            x = torch.stack([conv(x[:, :, frame], "upsampler.0") for frame in range(x.shape[2])], 2)
        else:
            x = conv(x, "upsampler.0")
        factors = [2 if config.temporal_upsample else 1] * (x.ndim == 5) + [2 if config.spatial_upsample else 1] * 2
        b, _, *grid = x.shape
        shuffled = torch.zeros(b, config.mid_channels, *(n * k for n, k in zip(grid, factors, strict=True)))
        per_channel = x.shape[1] // config.mid_channels
        for index, offsets in enumerate(itertools.product(*map(range, factors))):
            places = tuple(slice(o, None, k) for o, k in zip(offsets, factors, strict=True))
            shuffled[:, :, *places] = x[:, index::per_channel]
        if config.temporal_upsample:
            shuffled = shuffled[:, :, 1:]
        return conv(stage(shuffled, "post_upsample_res_blocks"), "final_conv")

    if config.dims == 2:
        return torch.stack([network_of(z[:, :, frame]) for frame in range(z.shape[2])], 2)
    return network_of(z)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_network_is_its_description(kind: str) -> None:
    network, z = tiny(kind), torch.randn(2, 4, 3, 4, 5)
    larger = network(z)
    torch.testing.assert_close(larger, by_the_book(network, z), rtol=1e-4, atol=1e-4)
    shape = network.config.enlarged(LatentShape(frames=3, height=4, width=5))
    assert larger.shape == (2, 4, shape.frames, shape.height, shape.width)
    assert network.config.enlarges == kind.split(",")[0]


def test_space_doubles_and_time_keeps_the_first_frame_single() -> None:
    shape = LatentShape(frames=16, height=14, width=25)
    sizes = {kind: UpsamplerConfig(**settings).enlarged(shape) for kind, settings in KINDS.items()}
    assert sizes["space"] == sizes["space, 2D"] == LatentShape(frames=16, height=28, width=50)
    assert sizes["time"] == LatentShape(frames=31, height=14, width=25)
    assert sizes["space and time"] == LatentShape(frames=31, height=28, width=50)


@pytest.mark.parametrize(("kind", "sees"), [("space", True), ("time", True), ("space, 2D", False)])
@torch.no_grad()
def test_only_the_2d_network_sees_each_frame_alone(kind: str, sees: bool) -> None:
    network, z = tiny(kind), torch.randn(1, 4, 3, 4, 5)
    changed = z.clone()
    changed[:, :, -1] += 1
    assert torch.equal(network(z)[:, :, 0], network(changed)[:, :, 0]) is not sees


@pytest.mark.parametrize(
    ("kind", "parameters"), [("space", 126_250_624), ("time", 130_968_192), ("space and time", 173_438_592)]
)
def test_the_released_sizes(kind: str, parameters: int) -> None:
    with torch.device("meta"):
        network = LatentUpsampler(UpsamplerConfig(**KINDS[kind]))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network.initial_conv.weight.shape == (512, 128, 3, 3, 3)
    assert {name.split(".")[0] for name in network.state_dict()} == {
        "initial_conv", "initial_norm", "res_blocks", "upsampler", "post_upsample_res_blocks", "final_conv"
    }  # fmt: skip


@torch.no_grad()
def test_bfloat16_gives_nearly_the_same_latents() -> None:
    network, z = tiny("space"), torch.randn(1, 4, 3, 4, 5)
    exact = network(z)
    half = network.bfloat16()(z.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() / exact.norm() < 0.03


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spatial_upsample": False}, "says neither"),
        ({"dims": 2, "temporal_upsample": True}, "dims=2"),
        ({"dims": 1}, "dims=1"),
        ({"mid_channels": 40}, "multiple of 32"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        UpsamplerConfig(**settings)
