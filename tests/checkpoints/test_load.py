"""Loading is strict both ways, keeps every value, and explains what does not fit."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from openltx.checkpoints import load_bundle, load_transformer, load_vae, save_single_file
from openltx.checkpoints.config import official_schedule
from openltx.checkpoints.header import read_header
from openltx.checkpoints.load import BUNDLED
from openltx.checkpoints.single_file import header_config
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder


def assert_same(module, other):
    ours, theirs = module.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def rewrite(path, change, config=True):
    """Change the tensors of a file, and drop its config if asked."""
    metadata = {"config": json.dumps(header_config(read_header(path)))} if config else None
    tensors = load_file(path)
    save_file(change(tensors), path, metadata=metadata)


def test_a_saved_model_comes_back_exactly(tiny_file, transformer, vae):
    loaded, loaded_vae = load_transformer(tiny_file), load_vae(tiny_file)
    assert (loaded.config, loaded_vae.config) == (transformer.config, vae.config)
    assert_same(loaded, transformer)
    assert_same(loaded_vae, vae)


def test_a_loaded_model_trains_and_is_in_evaluation_mode(tiny_file):
    loaded = load_vae(tiny_file)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_dtype_is_applied_to_every_tensor_and_none_keeps_them(tmp_path, transformer, vae):
    path = tmp_path / "half.safetensors"
    save_single_file(path, transformer, vae, metadata={})
    assert {p.dtype for p in load_transformer(path).parameters()} == {torch.bfloat16}
    assert {t.dtype for t in load_vae(path, dtype=torch.float32).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("prefix", ["diffusion_model.", ""])
def test_files_without_the_official_prefix_are_read(tiny_file, transformer, prefix):
    official = "model.diffusion_model."
    rewrite(tiny_file, lambda tensors: {name.replace(official, prefix): t for name, t in tensors.items()})
    assert_same(load_transformer(tiny_file), transformer)


def test_a_bare_vae_file_without_config_is_recognised(tmp_path):
    vae = VideoAutoencoder(vae_preset("0.9.5", base_channels=8, latent_channels=16))
    path = tmp_path / "vae.safetensors"
    save_file(vae.state_dict(), path)
    assert_same(load_vae(path), vae)
    with pytest.raises(CheckpointError, match="holds no LTX-Video transformer"):
        load_transformer(path)


def test_statistics_that_no_model_uses_are_left_out(tiny_file, vae):
    unused = {
        "vae.per_channel_statistics.mean-of-stds": torch.ones(16),
        "vae.per_channel_statistics.channel": torch.ones(16),
    }
    rewrite(tiny_file, lambda tensors: tensors | unused)
    assert_same(load_vae(tiny_file), vae)


def test_a_missing_tensor_is_named(tiny_file):
    rewrite(tiny_file, lambda tensors: {n: t for n, t in tensors.items() if not n.endswith("proj_out.bias")})
    with pytest.raises(CheckpointError, match=r"1 missing: proj_out\.bias"):
        load_transformer(tiny_file)


def test_an_unexpected_tensor_is_named(tiny_file):
    rewrite(tiny_file, lambda tensors: tensors | {"vae.decoder.extra": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"1 unexpected: decoder\.extra"):
        load_vae(tiny_file)


def test_a_tensor_of_neither_network_is_named(tiny_file):
    rewrite(tiny_file, lambda tensors: tensors | {"optimizer.step": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"belong to no transformer and no VAE: optimizer\.step"):
        load_vae(tiny_file)


def test_a_wrong_shape_is_named_with_both_shapes(tiny_file):
    name = "model.diffusion_model.proj_out.bias"
    rewrite(tiny_file, lambda tensors: tensors | {name: torch.ones(5)})
    with pytest.raises(CheckpointError, match=r"proj_out\.bias \[5\] instead of \[16\]"):
        load_transformer(tiny_file)


def test_a_file_with_renamed_tensors_is_refused(tiny_file):
    rewrite(tiny_file, lambda tensors: {f"x{i}": tensor for i, tensor in enumerate(tensors.values())})
    with pytest.raises(CheckpointError, match="check that its tensors were not renamed"):
        load_transformer(tiny_file)


def test_another_model_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}, path)
    for load in (load_transformer, load_vae, load_bundle):
        with pytest.raises(CheckpointError, match="holds no LTX-Video"):
            load(path)


def test_eight_bit_weights_need_a_dtype(tiny_file):
    name = "model.diffusion_model.proj_out.weight"
    rewrite(tiny_file, lambda tensors: tensors | {name: tensors[name].to(torch.float8_e4m3fn)})
    with pytest.raises(CheckpointError, match=r"8-bit.*dtype=torch\.bfloat16"):
        load_transformer(tiny_file)
    assert load_transformer(tiny_file, dtype=torch.float32).proj_out.weight.dtype == torch.float32


def test_a_bundle_has_all_that_its_file_states(tmp_path, transformer, vae):
    path = tmp_path / "mine.safetensors"
    schedule = Schedule(kind="uniform", shift="tokens", shift_low=(16, 0.5), shift_high=(64, 1.0))
    metadata = {"openltx.text_encoder": "all-MiniLM-L6-v2", "openltx.sampling": json.dumps({"steps": 7, "cfg": 2.5})}
    save_single_file(path, transformer, vae, metadata, official_schedule(schedule), dtype=torch.float32)
    model = load_bundle(path)
    assert_same(model.transformer, transformer)
    assert_same(model.vae, vae)
    assert model.schedule == schedule
    assert model.sampling == {"steps": 7, "cfg": 2.5}
    assert model.text is not None
    assert model.text.channels == transformer.config.caption_channels
    assert model.name == "mine"
    assert len(model.fingerprint) == 16


def test_a_released_file_has_no_text_encoder_and_the_schedule_of_its_release(tiny_file):
    model = load_bundle(tiny_file)
    assert (model.text, model.sampling) == (None, {})
    assert model.schedule == Schedule(kind="linear_quadratic")


def test_networks_that_do_not_fit_each_other_are_refused(tmp_path, transformer):
    vae = VideoAutoencoder(replace(vae_preset("tiny"), latent_channels=8))
    save_single_file(tmp_path / "a.safetensors", transformer, vae, metadata={})
    with pytest.raises(CheckpointError, match="takes 16 channels and the VAE's latents have 8"):
        load_bundle(tmp_path / "a.safetensors")


@pytest.mark.parametrize("sampling", ["steps", "[1]"])
def test_sampling_settings_must_be_a_json_object(tmp_path, transformer, vae, sampling):
    path = tmp_path / "a.safetensors"
    save_single_file(path, transformer, vae, metadata={"openltx.sampling": sampling})
    with pytest.raises(CheckpointError, match="not a JSON object"):
        load_bundle(path)


def test_an_unknown_name_is_refused_with_the_names_that_exist():
    with pytest.raises(CheckpointError, match="Did you mean playroom"):
        load_bundle("playrom")
    with pytest.raises(CheckpointError, match="There is no file"):
        load_bundle("nowhere/model.safetensors")


def test_a_bundled_model_that_is_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setattr("openltx.checkpoints.load.BUNDLED", (*BUNDLED, "nursery"))
    with pytest.raises(CheckpointError, match="not installed"):
        load_bundle("nursery")
