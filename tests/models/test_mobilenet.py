"""MobileNetV2: its size, its laws with random weights, and known answers where the real weights are present."""

from pathlib import Path

import pytest
import torch

from openltx.cache import cache_folder
from openltx.checkpoints.assets import load_mobilenet
from openltx.errors import AssetError
from openltx.models.mobilenet import MobileNetV2


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    """Random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MobileNetV2()


def pictures(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_it_has_the_published_number_of_weights_and_torchvisions_names(network: MobileNetV2) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_504_872
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(shapes) == 314
    assert shapes["features.0.0.weight"] == (32, 3, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (16, 32, 1, 1)  # the first block does not widen
    assert shapes["features.17.conv.1.0.weight"] == (960, 1, 3, 3)
    assert shapes["features.18.1.running_var"] == (1280,)
    assert shapes["classifier.1.weight"] == (1000, 1280)


def test_pictures_of_any_size_get_one_vector_each(network: MobileNetV2) -> None:
    assert network.embed(pictures(2, 48, 96)).shape == (2, 1280)
    assert network(pictures(1)).shape == (1, 1000)


def test_the_last_map_is_a_thirty_second_of_the_picture(network: MobileNetV2) -> None:
    assert network.features(torch.zeros(1, 3, 224, 224)).shape == (1, 1280, 7, 7)


def test_a_batch_gives_the_features_of_its_single_pictures(network: MobileNetV2) -> None:
    batch = pictures(2)
    torch.testing.assert_close(network.embed(batch), torch.cat([network.embed(x[None]) for x in batch]))


def test_absent_weights_are_named_with_the_command_that_gets_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="openltx assets pull mobilenet-v2"):
        load_mobilenet()


@pytest.mark.skipif(
    not list((cache_folder() / "assets").glob("mobilenet-v2-*.safetensors")),
    reason="the MobileNetV2 weights are absent: openltx assets pull mobilenet-v2",
)
def test_first_convolution_is_the_published_one() -> None:
    weight = load_mobilenet().state_dict()["features.0.0.weight"]
    torch.testing.assert_close(weight.flatten()[:3], torch.tensor([0.0132, -0.0043, 0.0148]), rtol=0, atol=5e-5)
