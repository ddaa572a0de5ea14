"""Official file -> diffusers folder -> official file: every bit the same, and diffusers itself loads the folder."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from openltx.checkpoints import load_bundle, load_transformer, load_vae, save_single_file
from openltx.checkpoints.config import official_schedule
from openltx.checkpoints.convert import convert
from openltx.checkpoints.diffusers import KEPT
from openltx.checkpoints.diffusers_folder import scheduler_json, transformer_json, vae_json
from openltx.checkpoints.header import read_header
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

SHAPES = {  # as the releases, but small: heads of 64 and of 128
    "2b": replace(transformer_preset("tiny"), num_heads=2, head_dim=64),
    "13b": replace(transformer_preset("tiny"), num_layers=3, num_heads=2, head_dim=128),
}
STATISTICS = ("mean-of-stds", "mean-of-stds_over_std-of-means", "channel")
SCHEDULES = {
    "0.9.0": Schedule(kind="uniform", shift="tokens", terminal=0.1),
    "0.9.1": Schedule(kind="uniform", shift="tokens", terminal=0.1),
    "0.9.5": Schedule(kind="linear_quadratic"),
}


def official_file(path, release="0.9.5", size="2b", dtype=torch.bfloat16):
    """A file as the releases are: bfloat16 weights, all five statistics, scheduler, allowed times."""
    torch.manual_seed(0)
    causal = release == "0.9.5"
    vae = VideoAutoencoder(vae_preset(release, base_channels=8, latent_channels=16))
    transformer = VideoTransformer(replace(SHAPES[size], causal_positions=causal))
    save_single_file(path, transformer, vae, metadata={}, scheduler=official_schedule(SCHEDULES[release]), dtype=dtype)
    header = read_header(path)
    config = json.loads(header.metadata["config"]) | {"allowed_inference_steps": [1.0, 0.5]}
    unused = {f"vae.per_channel_statistics.{name}": torch.rand(16) for name in STATISTICS}
    save_file(load_file(path) | unused, path, metadata={"config": json.dumps(config), "maker": "somebody"})
    return path


def assert_same_file(path, other):
    ours, theirs = load_file(path), load_file(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(*(one.reshape(-1).view(torch.uint8) for one in (tensor, theirs[name]))), name
    assert read_header(path).metadata == read_header(other).metadata


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("release", SCHEDULES)
def test_there_and_back_every_bit_and_the_header_are_the_same(tmp_path, release, size):
    file = official_file(tmp_path / "a.safetensors", release, size)
    convert(file, tmp_path / "folder", "diffusers")
    convert(tmp_path / "folder", tmp_path / "b.safetensors", "single-file")
    assert_same_file(file, tmp_path / "b.safetensors")
    before, after = load_bundle(file), load_bundle(tmp_path / "folder")
    assert (before.schedule, before.allowed_times) == (after.schedule, after.allowed_times)
    assert before.transformer.config == after.transformer.config
    assert before.vae.config == after.vae.config
    assert before.transformer.config.causal_positions == (release == "0.9.5")


@pytest.mark.parametrize("release", SCHEDULES)
def test_diffusers_loads_the_folder(tmp_path, release):
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

    file = official_file(tmp_path / "a.safetensors", release, dtype=torch.float32)
    convert(file, tmp_path / "folder", "diffusers")
    theirs = LTXVideoTransformer3DModel.from_pretrained(tmp_path / "folder", subfolder="transformer")
    ours = load_transformer(file)
    tokens, text, mask = torch.randn(1, 8, 16), torch.randn(1, 4, 384), torch.ones(1, 4, dtype=torch.bool)
    grid = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), torch.arange(2), indexing="ij")).float()
    positions = grid.reshape(1, 3, 8) * torch.tensor([1.0, 32.0, 32.0])[None, :, None]
    with torch.no_grad():
        expected = theirs(tokens, text, torch.tensor([[500.0]]), mask, video_coords=positions).sample
        got = ours(tokens, torch.tensor([0.5]), positions, text, mask)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5)
    autoencoder = AutoencoderKLLTXVideo.from_pretrained(tmp_path / "folder", subfolder="vae")
    video = torch.rand(1, 3, 9, 32, 32)
    with torch.no_grad():
        latents = load_vae(file).encoder(video).mean
        assert torch.allclose(latents, autoencoder.encode(video).latent_dist.mean, rtol=1e-4, atol=1e-5)


def test_diffusers_makes_a_pipeline_of_the_folder(tmp_path):
    from diffusers import DiffusionPipeline, LTXConditionPipeline

    convert(official_file(tmp_path / "a.safetensors"), tmp_path / "folder", "diffusers")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "folder", text_encoder=None, tokenizer=None)
    assert isinstance(pipeline, LTXConditionPipeline)
    assert pipeline.text_encoder is None
    assert not pipeline.scheduler.config.use_dynamic_shifting


def test_a_folder_of_diffusers_becomes_a_file_and_what_it_lacks_is_said(tmp_path):
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

    torch.manual_seed(0)
    LTXVideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=2, caption_channels=24,
    ).save_pretrained(tmp_path / "folder" / "transformer", max_shard_size="10KB")  # fmt: skip
    AutoencoderKLLTXVideo(
        latent_channels=16, block_out_channels=(8, 16, 32, 32), decoder_block_out_channels=(8, 16, 32, 32)
    ).save_pretrained(tmp_path / "folder" / "vae")
    said = []
    convert(tmp_path / "folder", tmp_path / "a.safetensors", "single-file", report=said.append)
    assert any("three unused statistics are not" in line for line in said)
    assert (tmp_path / "folder" / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    file, folder = load_bundle(tmp_path / "a.safetensors"), load_bundle(tmp_path / "folder")
    assert file.transformer.config == folder.transformer.config
    assert not file.transformer.config.causal_positions
    for name, tensor in folder.vae.state_dict().items():
        assert torch.equal(tensor, file.vae.state_dict()[name]), name


def test_one_network_alone_is_converted_too(tmp_path, vae):
    save_single_file(tmp_path / "vae.safetensors", None, vae, metadata={}, dtype=torch.float32)
    convert(tmp_path / "vae.safetensors", tmp_path / "folder", "diffusers")
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["transformer"] == [None, None]
    convert(tmp_path / "folder" / "vae", tmp_path / "b.safetensors", "single-file")
    assert load_vae(tmp_path / "b.safetensors").config == vae.config


def test_weights_take_another_format_and_statistics_keep_theirs(tmp_path):
    file = official_file(tmp_path / "a.safetensors", dtype=torch.float32)
    convert(file, tmp_path / "b.safetensors", "single-file", dtype="bfloat16")
    before, after = load_file(file), load_file(tmp_path / "b.safetensors")
    for name, tensor in before.items():
        expected = tensor if "per_channel_statistics" in name else tensor.bfloat16()
        assert torch.equal(after[name], expected), name
        assert after[name].dtype == expected.dtype


def test_eight_bit_weights_are_copied_as_they_are_and_upcast_on_load(tmp_path):
    file = official_file(tmp_path / "a.safetensors")
    name = "model.diffusion_model.transformer_blocks.0.attn1.to_q.weight"
    tensors = load_file(file)
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, file, metadata=read_header(file).metadata)
    convert(file, tmp_path / "folder", "diffusers")
    convert(tmp_path / "folder", tmp_path / "b.safetensors", "single-file")
    assert_same_file(file, tmp_path / "b.safetensors")
    loaded = load_transformer(tmp_path / "folder", dtype=torch.bfloat16).transformer_blocks[0].attn1.to_q.weight
    assert torch.equal(loaded, tensors[name].bfloat16())


def test_a_file_without_prefix_and_config_gets_both(tmp_path):
    vae = VideoAutoencoder(vae_preset("0.9.1", base_channels=8, latent_channels=16))
    save_file(vae.state_dict(), tmp_path / "vae.safetensors")
    convert(tmp_path / "vae.safetensors", tmp_path / "b.safetensors", "single-file")
    header = read_header(tmp_path / "b.safetensors")
    assert all(name.startswith("vae.") for name in header.tensors)
    assert set(json.loads(header.metadata["config"])) == {"vae"}
    assert load_vae(tmp_path / "b.safetensors").config == vae.config


def test_nothing_is_replaced_without_force(tmp_path, tiny_file):
    (tmp_path / "there.safetensors").write_text("precious")
    with pytest.raises(CheckpointError, match=r"exists already.*--force"):
        convert(tiny_file, tmp_path / "there.safetensors", "single-file")
    assert (tmp_path / "there.safetensors").read_text() == "precious"
    convert(tiny_file, tmp_path / "there.safetensors", "single-file", force=True)
    assert load_vae(tmp_path / "there.safetensors").config == load_vae(tiny_file).config
    for _ in range(2):
        convert(tiny_file, tmp_path / "folder", "diffusers", force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"there.safetensors", "folder", tiny_file.name}


def test_a_folder_of_something_else_is_never_replaced(tmp_path, tiny_file):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="a folder of something else"):
        convert(tiny_file, tmp_path / "home", "diffusers", force=True)
    assert (tmp_path / "home" / "letter.txt").exists()
    with pytest.raises(CheckpointError, match="onto itself"):
        convert(tiny_file, tiny_file, "single-file", force=True)
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        convert(tiny_file, tmp_path / "file.bin", "single-file")


@pytest.mark.parametrize("to", ["single-file", "diffusers"])
def test_a_disk_that_fills_up_leaves_nothing_and_keeps_the_old(tmp_path, tiny_file, to, monkeypatch):
    target = tmp_path / ("b.safetensors" if to == "single-file" else "folder")
    convert(tiny_file, target, to)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("openltx.checkpoints.convert.write_tensors", full)
    with pytest.raises(CheckpointError, match=r"cannot be written.*No space left"):
        convert(tiny_file, target, to, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_incomplete_file_is_not_converted(tmp_path, tiny_file):
    tensors = load_file(tiny_file)
    tensors.pop("vae.decoder.conv_in.conv.bias")
    save_file(tensors, tiny_file, metadata=read_header(tiny_file).metadata)
    with pytest.raises(CheckpointError, match=r"missing: decoder\.conv_in\.conv\.bias"):
        convert(tiny_file, tmp_path / "folder", "diffusers")
    assert list(tmp_path.iterdir()) == [tiny_file]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (replace(vae_preset("0.9.5"), spatial_padding="replicate"), "spatial_padding='replicate'"),
        (replace(vae_preset("0.9.0"), latent_log_var="constant"), "latent_log_var='constant'"),
        (replace(transformer_preset("2b"), rope_spacing="inverse"), "rope_spacing='inverse'"),
        (replace(transformer_preset("2b"), qk_norm_eps=1e-6), "qk_norm_eps=1e-06"),
    ],
)
def test_what_diffusers_has_no_word_for_is_refused_by_name(config, word):
    write = transformer_json if hasattr(config, "num_heads") else vae_json
    with pytest.raises(CheckpointError, match=word):
        write(config)


def test_a_schedule_that_diffusers_has_not_is_kept_beside_and_said(tmp_path, transformer, vae):
    assert scheduler_json(Schedule(kind="constant", constant_mu=1.0)) is None
    schedule = official_schedule(Schedule(kind="constant", constant_mu=1.0))
    save_single_file(tmp_path / "a.safetensors", transformer, vae, metadata={}, scheduler=schedule)
    said = []
    convert(tmp_path / "a.safetensors", tmp_path / "folder", "diffusers", report=said.append)
    assert any("no such schedule" in line for line in said)
    assert load_bundle(tmp_path / "folder").schedule == Schedule(kind="constant", constant_mu=1.0)
    (tmp_path / "folder" / KEPT).unlink()
    assert load_bundle(tmp_path / "folder").schedule == Schedule(kind="linear_quadratic")
