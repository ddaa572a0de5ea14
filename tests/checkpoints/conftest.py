"""A tiny model in memory, and its file in the official layout."""

import pytest
import torch

from openltx.checkpoints.single_file import save_single_file
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder


def randomised(module, seed=0):
    """The module with every tensor drawn anew, so that none equals its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + 0.05)
    return module.eval()


@pytest.fixture(scope="session")
def transformer():
    return randomised(VideoTransformer(transformer_preset("tiny")))


@pytest.fixture(scope="session")
def vae():
    return randomised(VideoAutoencoder(vae_preset("tiny")), seed=1)


@pytest.fixture
def tiny_file(tmp_path, transformer, vae):
    path = tmp_path / "tiny.safetensors"
    save_single_file(path, transformer, vae, metadata={}, dtype=torch.float32)
    return path
