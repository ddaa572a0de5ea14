"""Releases by name: found in the hub's cache, fetched on request, never otherwise; a hub of our own stands in."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
import torch
from huggingface_hub import constants, errors

from openltx.checkpoints import load_bundle
from openltx.checkpoints.releases import RELEASES
from openltx.checkpoints.zoo import find_release, local_path, pull, release_of
from openltx.errors import AssetError, CheckpointError
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

REVISION = "0" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch, tiny_file):
    """An empty cache, and a hub whose every file is the tiny model; ``hub.asked`` are the files it was asked for."""

    class Hub:
        def __init__(self):
            self.asked, self.error = [], None

        def place(self, repo, file):
            folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
            (folder / "refs").mkdir(parents=True, exist_ok=True)
            (folder / "refs" / "main").write_text(REVISION)
            target = folder / "snapshots" / REVISION / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_file, target)
            return target

        def download(self, repo, file, local_dir=None):
            self.asked.append(file)
            if self.error is not None:
                raise self.error
            if local_dir is None:
                return str(self.place(repo, file))
            Path(local_dir).mkdir(parents=True, exist_ok=True)
            return shutil.copy(tiny_file, Path(local_dir) / file)

        def snapshot(self, repo, allow_patterns, **_):
            files = [self.place(repo, pattern.replace("*", "config.json")) for pattern in allow_patterns]
            return str(files[0].parent.parent)

    fake = Hub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake.download)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake.snapshot)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**12))
    return fake


def response(status):
    return httpx2.Response(status, request=httpx2.Request("GET", "http://hub"))


def test_every_release_has_what_a_reader_wants_to_know():
    for name, release in RELEASES.items():
        assert release.name == name
        assert release.licence
        assert release.gigabytes > 0
        assert bool(release.file) != bool(release.folders)
        assert all(other in RELEASES for other in release.needs)
        assert bool(release.sampling) == (release.kind == "model")
        assert "t5-xxl" in release.needs or release.kind != "model"


@pytest.mark.parametrize(
    ("name", "size", "vae", "bytes_each"),
    [
        ("ltxv-2b-0.9", "2b", "0.9.0", 4),
        ("ltxv-2b-0.9.1", "2b", "0.9.1", 2),
        ("ltxv-2b-0.9.6-distilled", "2b", "0.9.5", 2),
        ("ltxv-13b-0.9.8-dev", "13b", "0.9.5", 2),
    ],
)
def test_stated_sizes_are_those_of_the_weights(name, size, vae, bytes_each):
    with torch.device("meta"):
        modules = VideoTransformer(transformer_preset(size)), VideoAutoencoder(vae_preset(vae))
    count = sum(tensor.numel() for module in modules for tensor in module.state_dict().values())
    assert RELEASES[name].gigabytes == pytest.approx(count * bytes_each / 1e9, abs=0.06)


def test_a_release_is_found_by_name_and_by_its_files_name():
    release = RELEASES["ltxv-2b-0.9.6-dev"]
    for name in ("ltxv-2b-0.9.6-dev", "ltxv-2b-0.9.6-dev-04-25", "/models/ltxv-2b-0.9.6-dev-04-25.safetensors"):
        assert release_of(name) is release
    assert release_of("my-own.safetensors") is None
    with pytest.raises(CheckpointError, match=r"Did you mean ltxv-2b-0\.9\.5"):
        find_release("ltxv-2b-0.9.55")


def test_nothing_is_ever_fetched_without_being_asked_for(hub):
    with pytest.raises(
        CheckpointError, match=r"28\.6 GB\) is not on this machine.*openltx pull ltxv-13b-0\.9\.8-dev\."
    ):
        load_bundle("ltxv-13b-0.9.8-dev")
    assert hub.asked == []


def test_a_pulled_release_is_loaded_by_name_with_its_settings(hub):
    release = RELEASES["ltxv-13b-0.9.8-distilled"]
    assert local_path(release) is None
    path = pull(release)
    assert path == local_path(release)
    assert pull(release) == path
    assert hub.asked == ["ltxv-13b-0.9.8-distilled.safetensors"]  # and not a second time
    model = load_bundle("ltxv-13b-0.9.8-distilled")
    assert model.name == "ltxv-13b-0.9.8-distilled"
    assert model.sampling == release.sampling


def test_a_file_has_the_settings_of_its_name_or_of_the_recipe(hub, tmp_path, tiny_file):
    named = tmp_path / "ltx-video-2b-v0.9.5.safetensors"
    shutil.copy(tiny_file, named)
    assert load_bundle(named).sampling == RELEASES["ltxv-2b-0.9.5"].sampling
    assert load_bundle(tiny_file).sampling == {}
    assert load_bundle(tiny_file, recipe="ltxv-2b-0.9.5").sampling == RELEASES["ltxv-2b-0.9.5"].sampling


def test_a_folder_of_ones_own_gets_a_plain_file(hub, tmp_path):
    path = pull(RELEASES["ltxv-spatial-upscaler-0.9.8"], tmp_path / "mine")
    assert path == tmp_path / "mine" / "ltxv-spatial-upscaler-0.9.8.safetensors"
    assert local_path(RELEASES["ltxv-spatial-upscaler-0.9.8"]) is None


def test_the_text_encoder_is_two_folders(hub):
    path = pull(RELEASES["t5-xxl"])
    assert {child.name for child in path.iterdir()} == {"text_encoder", "tokenizer"}
    assert local_path(RELEASES["t5-xxl"]) == path


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (errors.LocalEntryNotFoundError("no connection"), "network cannot be reached, and it is not in the cache"),
        (errors.OfflineModeIsEnabled("offline"), "network cannot be reached"),
        (errors.GatedRepoError("gated", response=response(403)), "asks for your consent.*hf auth login"),
        (errors.RemoteEntryNotFoundError("gone", response=response(404)), "no such file any more"),
        (httpx2.ReadTimeout("the read timed out"), "the read timed out. What was fetched so far is kept"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_failed_download_is_one_clear_error(hub, error, complaint):
    hub.error = error
    with pytest.raises(AssetError, match=f"(?s)ltx-video-2b-v0.9.5.*{complaint}") as refused:
        pull(RELEASES["ltxv-2b-0.9.5"])
    assert len(str(refused.value).splitlines()) == 1


def test_a_full_disk_is_noticed_before_the_download(hub, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(AssetError, match=r"takes 28\.6 GB, and .* has 1\.0 GB free.*--to"):
        pull(RELEASES["ltxv-13b-0.9.8-dev"])
    assert hub.asked == []
