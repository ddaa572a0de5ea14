"""Our latent upsampler and AdaIN against the independent ones in diffusers: random weights, float32, tiny."""

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.ltx import LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

from openltx.checkpoints import load_upsampler
from openltx.flow.adain import adain
from openltx.models.upsampler import LatentUpsampler

TOLERANCE = 1e-5  # of the largest value
KINDS = {
    "space": {"spatial_upsample": True, "temporal_upsample": False},
    "time": {"spatial_upsample": False, "temporal_upsample": True},
    "space and time": {"spatial_upsample": True, "temporal_upsample": True},
    "space, 2D": {"spatial_upsample": True, "temporal_upsample": False, "dims": 2},
}


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LatentUpsampler, LTXLatentUpsamplerModel]:
    """Theirs with random weights, and ours from the folder that theirs is saved to."""
    theirs = LTXLatentUpsamplerModel(
        in_channels=8, mid_channels=64, num_blocks_per_stage=2, **KINDS[request.param]
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape) * fan_in**-0.5)
    theirs.save_pretrained(tmp_path / "latent_upsampler")
    return load_upsampler(tmp_path), theirs


@torch.no_grad()
def test_latents_are_enlarged_as_by_diffusers(pair: tuple[LatentUpsampler, LTXLatentUpsamplerModel]) -> None:
    ours, theirs = pair
    z = torch.randn(2, 8, 4, 5, 6)
    expected = theirs(z)
    error = (ours(z) - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE, error


@pytest.mark.parametrize("factor", [0.25, 1.0])
def test_adain_is_that_of_diffusers(factor: float) -> None:
    z, reference = 2 * torch.randn(2, 8, 3, 4, 5) + 1, torch.randn(2, 8, 3, 2, 3)
    expected = LTXLatentUpsamplePipeline.adain_filter_latent(None, z, reference, factor)
    torch.testing.assert_close(adain(z, reference, factor), expected, rtol=1e-5, atol=1e-5)
