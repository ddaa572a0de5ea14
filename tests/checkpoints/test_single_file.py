"""Single files: written whole or not at all, described without loading, refused with a reason."""

import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from openltx.checkpoints import inspect_file, save_single_file
from openltx.checkpoints.fingerprint import fingerprint
from openltx.errors import CheckpointError


def test_the_file_has_the_official_layout(tiny_file, transformer, vae):
    names = set(load_file(tiny_file))
    assert names == {f"model.diffusion_model.{name}" for name in transformer.state_dict()} | {
        f"vae.{name}" for name in vae.state_dict()
    }
    config = inspect_file(tiny_file).config
    assert config["transformer"]["_class_name"] == "Transformer3DModel"
    assert config["vae"]["_class_name"] == "CausalVideoAutoencoder"


def test_weights_are_bfloat16_by_default_and_statistics_exact(tmp_path, transformer, vae):
    save_single_file(tmp_path / "a.safetensors", transformer, vae, metadata={})
    stored = load_file(tmp_path / "a.safetensors")
    dtypes = {tensor.dtype for name, tensor in stored.items() if "per_channel_statistics" not in name}
    assert dtypes == {torch.bfloat16}
    assert torch.equal(stored["vae.per_channel_statistics.mean-of-means"], vae.per_channel_statistics.mean)


def test_the_report_has_metadata_tensors_and_hash(tmp_path, transformer):
    path = tmp_path / "a.safetensors"
    scheduler = {"sampler": "Uniform"}
    save_single_file(path, transformer, None, metadata={"openltx.world": "playroom"}, scheduler=scheduler)
    report = inspect_file(path)
    assert report.metadata == {"format": "pt", "openltx.world": "playroom"}
    assert report.config["scheduler"] == scheduler
    assert report.num_parameters == sum(parameter.numel() for parameter in transformer.parameters())
    table = {tensor.name: (tensor.dtype, tensor.shape) for tensor in report.tensors}
    assert table["model.diffusion_model.patchify_proj.weight"] == ("BF16", (32, 16))
    assert len(report.sha256) == 64


def test_a_failed_save_leaves_nothing_and_keeps_the_old_file(tmp_path, transformer, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_single_file(path, transformer, None, metadata={})
    before = path.read_bytes()

    def full_disk(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(CheckpointError, match=r"cannot be written.*No space left"):
        save_single_file(path, transformer, None, metadata={})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_folder_is_one_clear_error(tmp_path, transformer):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_single_file(tmp_path / "no" / "a.safetensors", transformer, None, metadata={})


def test_a_missing_file_is_refused_with_the_nearest_name(tiny_file):
    with pytest.raises(CheckpointError, match=r"Did you mean tiny\.safetensors"):
        inspect_file(tiny_file.with_name("tinny.safetensors"))
    with pytest.raises(CheckpointError, match="does not exist"):
        inspect_file(tiny_file.parent / "no" / "a.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        inspect_file(tiny_file.parent)


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, -1])
def test_a_truncated_file_is_refused_wherever_it_was_cut(tiny_file, kept):
    whole = tiny_file.read_bytes()
    tiny_file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match="cut short"):
        inspect_file(tiny_file)


def test_a_pickle_is_refused_with_the_reason_under_any_name(tmp_path):
    for name, zipped in (("model.ckpt", False), ("model.pt", True), ("model.safetensors", True)):
        torch.save({"a": torch.ones(1)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r"is a pickle.*runs any code"):
            inspect_file(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x00\x00\x00\x20ftypisom" + b"0" * 100, "no safetensors file"),
        (struct.pack("<Q", 4) + b"abcd", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "makes no sense"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path, content, complaint):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        inspect_file(path)


def test_any_safetensors_file_can_be_inspected(tmp_path):
    save_file({"a": torch.ones(2, 3)}, tmp_path / "a.safetensors")
    report = inspect_file(tmp_path / "a.safetensors")
    assert (report.config, report.metadata, report.tensors[0].shape) == ({}, {}, (2, 3))


def test_a_fingerprint_follows_values_names_and_dtype():
    module = torch.nn.Linear(2, 2)
    first = fingerprint(module)
    assert first == fingerprint(module)
    assert first != fingerprint(torch.nn.Sequential(module))
    assert first != fingerprint(torch.nn.Linear(2, 2).double())
    with torch.no_grad():
        module.bias[0] += 1e-6
    assert first != fingerprint(module)
