"""Upsampler files: there and back exactly, recognised without a config, refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from openltx.checkpoints import inspect_file, load_transformer, load_upsampler, save_upsampler
from openltx.checkpoints.upsampler import official_upsampler, upsampler_config, upsampler_in
from openltx.cli import main
from openltx.errors import CheckpointError
from openltx.models.upsampler import LatentUpsampler, UpsamplerConfig

KINDS = {
    "space": {},
    "time": {"spatial_upsample": False, "temporal_upsample": True},
    "space and time": {"temporal_upsample": True},
    "space, 2D": {"dims": 2},
}


def tiny(kind: str = "space") -> LatentUpsampler:
    return LatentUpsampler(UpsamplerConfig(in_channels=16, mid_channels=32, num_blocks_per_stage=1, **KINDS[kind]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_upsampler(tmp_path / "up.safetensors", tiny(), dtype=torch.float32)
    return tmp_path / "up.safetensors"


def assert_same(ours: LatentUpsampler, theirs: LatentUpsampler) -> None:
    assert ours.config == theirs.config
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_comes_back_exactly(tmp_path: Path, kind: str) -> None:
    network = tiny(kind)
    save_upsampler(tmp_path / "up.safetensors", network, {"note": "mine"}, dtype=torch.float32)
    assert_same(load_upsampler(tmp_path / "up.safetensors"), network)
    with safe_open(tmp_path / "up.safetensors", "pt") as written:
        metadata = written.metadata()
    assert metadata["note"] == "mine"
    assert json.loads(metadata["config"]) == {
        "_class_name": "LatentUpsampler", "in_channels": 16, "mid_channels": 32, "num_blocks_per_stage": 1,
        "dims": network.config.dims, "spatial_upsample": network.config.spatial_upsample,
        "temporal_upsample": network.config.temporal_upsample,
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_a_config_is_recognised_by_its_tensors(tmp_path: Path, kind: str) -> None:
    network = tiny(kind)
    save_file(network.state_dict(), tmp_path / "up.safetensors")
    assert_same(load_upsampler(tmp_path / "up.safetensors"), network)


@pytest.mark.parametrize("inside", ["latent_upsampler", "."])
def test_a_diffusers_folder_is_read(tmp_path: Path, inside: str) -> None:
    network = tiny("time")
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    config = official_upsampler(network.config) | {"_class_name": "LTXLatentUpsamplerModel", "_diffusers_version": "1"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    assert_same(load_upsampler(tmp_path), network)


def test_weights_are_bfloat16_in_a_file_and_what_is_asked_for_in_memory(tmp_path: Path) -> None:
    save_upsampler(tmp_path / "up.safetensors", tiny())
    assert {tensor.dtype for tensor in load_file(tmp_path / "up.safetensors").values()} == {torch.bfloat16}
    assert load_upsampler(tmp_path / "up.safetensors").final_conv.weight.dtype == torch.bfloat16
    assert load_upsampler(tmp_path / "up.safetensors", torch.float32).final_conv.weight.dtype == torch.float32


def test_absent_keys_are_those_of_the_released_spatial_upscaler() -> None:
    assert upsampler_config({}) == UpsamplerConfig(in_channels=128, mid_channels=512, num_blocks_per_stage=4, dims=3)


@pytest.mark.parametrize("value", ["wide", True, 1.5, None])
def test_a_config_value_of_another_kind_is_named(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"mid_channels=.*must be a whole number"):
        upsampler_config({"mid_channels": value})


def test_a_key_that_nobody_knows_warns() -> None:
    with pytest.warns(UserWarning, match="rational_resampler"):
        upsampler_config({"rational_resampler": False})


def test_missing_unexpected_and_misshapen_tensors_are_named(file: Path) -> None:
    tensors = load_file(file)
    config = {"config": json.dumps(official_upsampler(tiny().config))}
    changes = {
        "1 missing: res_blocks.0.norm1.bias": {n: t for n, t in tensors.items() if n != "res_blocks.0.norm1.bias"},
        "1 unexpected: res_blocks.7.norm1.bias": tensors | {"res_blocks.7.norm1.bias": torch.ones(32)},
        r"final_conv.bias \[5\] instead of \[16\]": tensors | {"final_conv.bias": torch.ones(5)},
    }
    for message, changed in changes.items():
        save_file(changed, file, metadata=config)
        with pytest.raises(CheckpointError, match=message):
            load_upsampler(file)


def test_a_file_whose_tensors_do_not_tell_what_it_enlarges_is_refused(file: Path) -> None:
    for weight in (torch.ones(96, 32, 3, 3), None):
        tensors = {name: tensor for name, tensor in load_file(file).items() if name != "upsampler.0.weight"}
        save_file(tensors | ({} if weight is None else {"upsampler.0.weight": weight}), file)
        with pytest.raises(CheckpointError, match="do not tell what the upsampler enlarges"):
            load_upsampler(file)


def test_a_model_is_no_upscaler_and_an_upscaler_no_model(file: Path, tiny_file: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no latent upsampler"):
        load_upsampler(tiny_file)
    with pytest.raises(CheckpointError, match="is a latent upsampler, not a model"):
        load_transformer(file)
    with pytest.raises(CheckpointError, match="holds no latent_upsampler in the diffusers layout"):
        load_upsampler(file.parent)


def test_inspect_says_what_such_a_file_is(file: Path, tiny_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file)]) == 0
    assert "a latent upsampler for space" in capsys.readouterr().out
    assert upsampler_in(inspect_file(tiny_file)) is None
    save_file(tiny("space and time").state_dict(), file)
    assert main(["inspect", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "a latent upsampler for space and time"
