"""Diffusers folders: whole or sharded, renamed on the way in."""

import json

import pytest
import torch
from safetensors.torch import save_file

from openltx.checkpoints import load_bundle, load_transformer, load_vae
from openltx.checkpoints.diffusers import transformer_config, vae_config
from openltx.checkpoints.keys import TRANSFORMER_TABLE, vae_table
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder

TRANSFORMER_JSON = {
    "_class_name": "LTXVideoTransformer3DModel", "num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 8,
    "cross_attention_dim": 32, "caption_channels": 384, "in_channels": 16, "out_channels": 16,
}  # fmt: skip
VAE_JSON = {
    "_class_name": "AutoencoderKLLTXVideo", "latent_channels": 16, "block_out_channels": [8, 16, 32, 64, 128],
    "down_block_types": ["LTXVideo095DownBlock3D"] * 4, "layers_per_block": [4, 6, 6, 2, 2],
    "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
    "spatio_temporal_scaling": [True] * 4, "decoder_block_out_channels": [16, 32, 64],
    "decoder_layers_per_block": [5, 5, 5, 5], "decoder_spatio_temporal_scaling": [True] * 3,
    "decoder_inject_noise": [False] * 4, "upsample_residual": [True] * 3, "upsample_factor": [2, 2, 2],
    "timestep_conditioning": True,
}  # fmt: skip
DYNAMIC_SHIFT = {
    "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024,
    "max_image_seq_len": 4096, "shift_terminal": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def narrow_vae():
    torch.manual_seed(0)
    return VideoAutoencoder(vae_preset("0.9.5", base_channels=8, latent_channels=16))


@pytest.fixture
def folder(tmp_path, transformer, narrow_vae):
    for name, config, tensors in (
        ("transformer", TRANSFORMER_JSON, TRANSFORMER_TABLE.apply(transformer.state_dict())),
        ("vae", VAE_JSON, vae_table(narrow_vae.config).apply(narrow_vae.state_dict())),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / name / "diffusion_pytorch_model.safetensors")
    return tmp_path


def shard(part):
    """Split a part's weights in two files and an index."""
    from safetensors.torch import load_file

    whole = part / "diffusion_pytorch_model.safetensors"
    tensors, where = load_file(whole), {}
    names = list(tensors)
    for i, some in enumerate((names[::2], names[1::2])):
        file = f"diffusion_pytorch_model-{i}.safetensors"
        save_file({name: tensors[name] for name in some}, part / file)
        where |= dict.fromkeys(some, file)
    whole.unlink()
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def assert_same(module, other):
    for name, tensor in other.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_loads_whole_and_sharded(folder, transformer, narrow_vae, sharded):
    if sharded:
        shard(folder / "transformer")
    assert_same(load_transformer(folder), transformer)
    assert_same(load_vae(folder), narrow_vae)
    assert_same(load_vae(folder / "vae"), narrow_vae)


def test_a_shard_that_lacks_a_tensor_is_refused(folder):
    shard(folder / "transformer")
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": dict.fromkeys(where, "diffusion_pytorch_model-0.safetensors")}))
    with pytest.raises(CheckpointError, match="and it is not"):
        load_transformer(folder)


def test_a_shard_with_a_tensor_too_many_is_refused(folder):
    shard(folder / "transformer")
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    where.pop("proj_out.bias")
    index.write_text(json.dumps({"weight_map": where}))
    with pytest.raises(CheckpointError, match="does not list"):
        load_transformer(folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no transformer in the diffusers layout"):
        load_bundle(tmp_path)


def test_a_bundle_of_a_folder_has_its_schedule(folder):
    assert load_bundle(folder).schedule == Schedule(kind="linear_quadratic")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(DYNAMIC_SHIFT))
    assert load_bundle(folder).schedule == Schedule(kind="uniform", shift="tokens", terminal=0.1)


def test_causal_positions_follow_the_vae_beside_the_transformer(folder):
    assert load_transformer(folder).config.causal_positions
    (folder / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLLTXVideo"}))
    assert not load_transformer(folder).config.causal_positions


def test_the_defaults_of_diffusers_are_the_first_release():
    assert transformer_config({}) == transformer_preset("2b")
    assert vae_config({}) == vae_preset("0.9.0")


@pytest.mark.parametrize(
    ("read", "change"),
    [
        (transformer_config, {"qk_norm": "layer_norm"}),
        (transformer_config, {"cross_attention_dim": 77}),
        (vae_config, {"scaling_factor": 0.5}),
        (vae_config, {"down_block_types": ["LTXVideo095DownBlock3D"] * 4, "downsample_type": ["blur"] * 4}),
    ],
)
def test_what_openltx_cannot_build_is_refused_by_name(read, change):
    key = list(change)[-1]
    with pytest.raises(CheckpointError, match=key):
        read(change)
