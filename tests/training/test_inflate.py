"""Inflation: what images have taught holds for still videos, in every frame, and for images as before."""

import pytest
import torch

from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.recipes import playroom
from openltx.training.inflate import inflate

CONFIGS = {
    "released 0.9.5": vae_preset("0.9.5", base_channels=8, latent_channels=16),
    "released 0.9.1": vae_preset("0.9.1", base_channels=8, latent_channels=16),
    "bundled": playroom.VAE,
}


@pytest.fixture(params=CONFIGS)
def vae(request: pytest.FixtureRequest) -> VideoAutoencoder:
    torch.manual_seed(0)
    vae = VideoAutoencoder(CONFIGS[request.param]).eval()
    for name, tensor in vae.state_dict().items():
        if name.endswith(("scale_shift_table", "bias")):
            tensor.normal_(std=0.2)
    return vae


@torch.no_grad()
def test_an_image_is_coded_as_before_and_a_still_video_as_its_image(vae: VideoAutoencoder) -> None:
    image = torch.rand(1, 3, 1, 64, 64) * 2 - 1
    before = vae.decode(vae.encode(image), 0.0)
    still = image.expand(-1, -1, 17, -1, -1)
    assert (vae.decode(vae.encode(still), 0.0) - before).abs().max() > 0.1 * before.abs().max()
    inflate(vae)
    scale = before.abs().max()
    assert (vae.decode(vae.encode(image), 0.0) - before).abs().max() < 1e-4 * scale
    latents = vae.encode(still)
    assert (latents - latents[:, :, :1]).abs().max() < 1e-4 * latents.abs().max()
    assert (vae.decode(latents, 0.0) - before).abs().max() < 1e-4 * scale
