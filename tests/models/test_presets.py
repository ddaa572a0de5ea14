"""The named architectures are the released ones, tensor by tensor."""

import json
from pathlib import Path

import pytest
import torch

from openltx.errors import CheckpointError
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

OFFICIAL = json.loads((Path(__file__).parents[1] / "golden" / "official_tensors.json").read_text())


def shapes(module, skip="-"):
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items() if not name.startswith(skip)}


def num_parameters(shapes, start=""):
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if name.startswith(start))


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("0.9.0", 180_404_353, 238_789_296),
        ("0.9.1", 180_404_353, 754_572_081),
        ("0.9.5", 694_098_881, 552_814_641),
    ],
)
def test_vae_presets_have_the_released_tensors(name, encoder, decoder):
    with torch.device("meta"):
        ours = shapes(VideoAutoencoder(vae_preset(name)), skip="per_channel_statistics.")
    assert ours == OFFICIAL[f"vae_{name}"]
    assert num_parameters(ours, "encoder.") == encoder
    assert num_parameters(ours, "decoder.") == decoder


def test_the_2b_preset_has_the_released_tensors():
    with torch.device("meta"):
        ours = shapes(VideoTransformer(transformer_preset("2b")))
    without_later_blocks = {
        name: shape
        for name, shape in ours.items()
        if not name.startswith("transformer_blocks.") or name.startswith("transformer_blocks.0.")
    }
    assert without_later_blocks == OFFICIAL["transformer_2b"]


@pytest.mark.parametrize(
    ("name", "tensors", "parameters", "block"),
    [("2b", 715, 1_923_385_472, 67_155_968), ("13b", 1215, 13_042_569_344, 268_529_664)],
)
def test_transformer_presets_have_the_released_size(name, tensors, parameters, block):
    with torch.device("meta"):
        ours = shapes(VideoTransformer(transformer_preset(name)))
    assert len(ours) == tensors
    assert num_parameters(ours) == parameters
    assert num_parameters(ours, "transformer_blocks.7.") == block


@pytest.mark.parametrize("name", ["0.9.0", "0.9.1", "0.9.5", "tiny"])
def test_every_vae_preset_compresses_8_frames_and_32_pixels(name):
    assert vae_preset(name, base_channels=8).compression == (8, 32)


def test_the_tiny_presets_fit_together():
    assert transformer_preset("tiny").in_channels == vae_preset("tiny").latent_channels


@pytest.mark.parametrize("preset", [transformer_preset, vae_preset])
def test_an_unknown_preset_is_refused_with_those_that_exist(preset):
    with pytest.raises(CheckpointError, match=r"'3b'.*tiny"):
        preset("3b")
