"""Official config sections become our configurations and come back; what we cannot build is refused by name."""

import json
from dataclasses import replace

import pytest
import torch

from openltx.checkpoints.config import (
    is_causal_release,
    official_schedule,
    official_transformer,
    official_vae,
    parse_config,
    schedule_from_official,
    sniff_transformer,
    sniff_vae,
    transformer_config,
    vae_config,
)
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

OFFICIAL_2B = {
    "_class_name": "Transformer3DModel", "_diffusers_version": "0.25.1", "activation_fn": "gelu-approximate",
    "adaptive_norm": "single_scale_shift", "attention_bias": True, "attention_head_dim": 64,
    "attention_type": "default",
    "caption_channels": 4096, "cross_attention_dim": 2048, "double_self_attention": False, "dropout": 0.0,
    "in_channels": 128, "norm_elementwise_affine": False, "norm_eps": 1e-06, "norm_num_groups": 32,
    "num_attention_heads": 32, "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": None,
    "only_cross_attention": False, "out_channels": 128, "positional_embedding_max_pos": [20, 2048, 2048],
    "positional_embedding_theta": 10000.0, "positional_embedding_type": "rope", "qk_norm": "rms_norm",
    "standardization_norm": "rms_norm", "timestep_scale_multiplier": 1000, "upcast_attention": False,
    "use_linear_projection": False,
}  # fmt: skip

OFFICIAL_VAE_090 = {
    "_class_name": "CausalVideoAutoencoder", "dims": 3, "in_channels": 3, "out_channels": 3, "latent_channels": 128,
    "blocks": [
        ["res_x", 4], ["compress_all", 1], ["res_x_y", 1], ["res_x", 3], ["compress_all", 1], ["res_x_y", 1],
        ["res_x", 3], ["compress_all", 1], ["res_x", 3], ["res_x", 4],
    ],
    "scaling_factor": 1.0, "norm_layer": "pixel_norm", "patch_size": 4, "latent_log_var": "uniform",
    "use_quant_conv": False, "causal_decoder": False,
}  # fmt: skip

CONDITIONED_DECODER = {
    "decoder_blocks": [
        ["res_x", {"num_layers": 5, "inject_noise": False}], ["compress_all", {"residual": True, "multiplier": 2}],
        ["res_x", {"num_layers": 5, "inject_noise": False}], ["compress_all", {"residual": True, "multiplier": 2}],
        ["res_x", {"num_layers": 5, "inject_noise": False}], ["compress_all", {"residual": True, "multiplier": 2}],
        ["res_x", {"num_layers": 5, "inject_noise": False}],
    ],
    "timestep_conditioning": True,
}  # fmt: skip

ENCODER_095 = {
    "encoder_blocks": [
        ["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}], ["res_x", {"num_layers": 6}],
        ["compress_time_res", {"multiplier": 2}], ["res_x", {"num_layers": 6}], ["compress_all_res", {"multiplier": 2}],
        ["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 2}], ["res_x", {"num_layers": 2}],
    ]
}  # fmt: skip


def shapes(kind, config):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in kind(config).state_dict().items()}


def test_the_released_transformer_config_is_the_2b_preset_without_causal_positions():
    assert transformer_config(OFFICIAL_2B) == replace(transformer_preset("2b"), causal_positions=False)


def test_causal_positions_are_read_from_the_config():
    assert transformer_config(OFFICIAL_2B | {"causal_temporal_positioning": True}) == transformer_preset("2b")


def test_the_released_vae_configs_are_the_presets():
    assert vae_config(OFFICIAL_VAE_090) == vae_preset("0.9.0")
    without_blocks = {key: value for key, value in OFFICIAL_VAE_090.items() if key != "blocks"}
    assert vae_config(without_blocks | ENCODER_095 | CONDITIONED_DECODER) == vae_preset("0.9.5")


@pytest.mark.parametrize("name", ["2b", "13b", "tiny"])
def test_transformer_configs_survive_the_official_form(name):
    config = transformer_preset(name)
    assert transformer_config(json.loads(json.dumps(official_transformer(config)))) == config


def test_rope_options_of_the_study_survive_the_official_form():
    config = replace(transformer_preset("tiny"), rope_spacing="inverse", rope_positions="absolute", qk_norm_eps=1e-6)
    assert transformer_config(official_transformer(config)) == config


def test_a_released_architecture_is_written_with_official_keys_only():
    assert set(official_transformer(transformer_preset("2b"))) <= {*OFFICIAL_2B, "causal_temporal_positioning"}


@pytest.mark.parametrize("name", ["0.9.0", "0.9.1", "0.9.5", "tiny"])
def test_vae_configs_survive_the_official_form(name):
    config = replace(vae_preset(name, base_channels=16), spatial_padding="replicate", latent_log_var="per_channel")
    assert vae_config(json.loads(json.dumps(official_vae(config)))) == config


@pytest.mark.parametrize(
    "change",
    [
        {"qk_norm": "layer_norm"},
        {"standardization_norm": "layer_norm"},
        {"num_layers": "many"},
        {"cross_attention_dim": 768},
        {"causal_temporal_positioning": "yes"},
        {"rope_spacing": "linear"},
    ],
)
def test_a_transformer_we_cannot_build_is_refused_by_name(change):
    (key, value), = change.items()  # fmt: skip
    with pytest.raises(CheckpointError, match=f"{key}={value!r}"):
        transformer_config(OFFICIAL_2B | change)


@pytest.mark.parametrize(
    "change",
    [
        {"norm_layer": "group_norm"},
        {"dims": 2},
        {"use_quant_conv": True},
        {"latent_log_var": "sometimes"},
        {"scaling_factor": 0.18},
    ],
)
def test_a_vae_we_cannot_build_is_refused_by_name(change):
    (key, value), = change.items()  # fmt: skip
    with pytest.raises(CheckpointError, match=f"{key}={value!r}"):
        vae_config(OFFICIAL_VAE_090 | change)


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        (["res_z", 3], "'res_z'.*knows res_x"),
        (["res_x", {"num_heads": 3}], "'num_heads'"),
        (["compress_all_res", {"multiplier": 2}], "compress_all_res.*not a kind of decoder block"),
        ("res_x", "not a .kind, parameters. pair"),
    ],
)
def test_a_decoder_block_we_do_not_have_is_refused_by_name(block, complaint):
    with pytest.raises(CheckpointError, match=complaint):
        vae_config(OFFICIAL_VAE_090 | {"decoder_blocks": [block]})


def test_missing_sizes_are_named():
    without = {key: value for key, value in OFFICIAL_2B.items() if key != "num_layers"}
    with pytest.raises(CheckpointError, match="no 'num_layers'"):
        transformer_config(without)
    with pytest.raises(CheckpointError, match="encoder_blocks"):
        vae_config({"dims": 3})


def test_an_unknown_key_warns():
    with pytest.warns(UserWarning, match="new_option"):
        transformer_config(OFFICIAL_2B | {"new_option": 1})


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_config_that_is_no_json_object_is_refused(text):
    with pytest.raises(CheckpointError, match='"config" entry'):
        parse_config(text)


@pytest.mark.parametrize("base", [8, 128])
@pytest.mark.parametrize("name", ["0.9.0", "0.9.1", "0.9.5"])
def test_a_vae_is_recognised_by_its_tensors(name, base):
    config = vae_preset(name, base_channels=base)
    assert sniff_vae(shapes(VideoAutoencoder, config)) == config
    assert is_causal_release(config) == (name == "0.9.5")


@pytest.mark.parametrize("name", ["2b", "13b"])
def test_a_transformer_is_recognised_by_its_tensors(name):
    sniffed = sniff_transformer(shapes(VideoTransformer, transformer_preset(name)), causal_positions=True)
    assert sniffed == transformer_preset(name)


def test_a_transformer_of_no_released_width_is_not_guessed():
    with pytest.raises(CheckpointError, match="32 wide"):
        sniff_transformer(shapes(VideoTransformer, transformer_preset("tiny")), causal_positions=True)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(kind="linear_quadratic"),
        Schedule(kind="uniform", shift="tokens", terminal=0.1),
        Schedule(kind="uniform", shift="tokens", shift_low=(16, 0.2), shift_high=(64, 1.0)),
        Schedule(kind="constant", constant_mu=1.5),
        Schedule(kind="uniform", shift="resolution", base_resolution=2048),
    ],
)
def test_schedules_survive_the_official_form(schedule):
    assert schedule_from_official(json.loads(json.dumps(official_schedule(schedule)))) == schedule


def test_the_scheduler_section_of_0_9_0_shifts_by_tokens_and_ends_at_a_tenth():
    section = {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "shifting": "SD3",
               "base_resolution": None, "target_shift_terminal": 0.1}  # fmt: skip
    assert schedule_from_official(section) == Schedule(kind="uniform", shift="tokens", terminal=0.1)


@pytest.mark.parametrize("change", [{"sampler": "Cosine"}, {"shifting": "SD4"}])
def test_a_schedule_we_do_not_have_is_refused_by_name(change):
    (key, value), = change.items()  # fmt: skip
    with pytest.raises(CheckpointError, match=f"{key}='{value}'"):
        schedule_from_official(change)
