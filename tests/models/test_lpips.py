"""LPIPS: laws that hold for any weights, and known values where the real weights are present."""

import pytest
import torch

from openltx.checkpoints.assets import LPIPS_WEIGHTS, load_lpips
from openltx.models.lpips import LPIPS, unit_length

needs_weights = pytest.mark.skipif(
    not LPIPS_WEIGHTS.is_present, reason="the LPIPS weights are absent: openltx assets pull lpips"
)


def with_random_weights(network: str) -> LPIPS:
    module = LPIPS(network)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel()
        parameter.data = values.abs() if parameter.ndim == 1 else values * (2 / fan_in) ** 0.5
    return module


def images(count: int, size: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_distance_is_zero_for_equal_images_and_symmetric_and_positive_otherwise(network: str) -> None:
    lpips, a, b = with_random_weights(network), images(2, seed=1), images(2, seed=2)
    assert lpips(a, a).tolist() == [0, 0]
    assert (lpips(a, b) > 0).all()
    torch.testing.assert_close(lpips(a, b), lpips(b, a))


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_a_batch_gives_the_distances_of_its_single_pairs(network: str) -> None:
    lpips, a, b = with_random_weights(network), images(3, seed=1), images(3, seed=2)
    singles = torch.cat([lpips(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(lpips(a, b), singles)


def test_gradient_is_finite_where_every_feature_is_zero() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    (unit_length(features) - 1).square().sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_features_are_brought_to_unit_length_and_zeros_stay_zero() -> None:
    features = torch.rand(2, 8, 3, 3)
    features[0, :, 0, 0] = 0
    lengths = unit_length(features).norm(dim=1)
    assert lengths[0, 0, 0] == 0
    torch.testing.assert_close(lengths.flatten()[1:], torch.ones(17))


def test_only_the_images_receive_gradients() -> None:
    lpips, a = with_random_weights("alex"), images(1).requires_grad_()
    lpips(a, images(1, seed=2)).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lpips.parameters())


def test_result_is_float32_under_half_precision() -> None:
    lpips = with_random_weights("alex")
    with torch.autocast("cpu", torch.bfloat16):
        half = lpips(images(1), images(1, seed=2))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, lpips(images(1), images(1, seed=2)), rtol=0.1, atol=0)


@needs_weights
@pytest.mark.parametrize(("network", "first"), [("vgg", [-0.5537, 0.1427, 0.5290]), ("alex", [0.1186, 0.0941, 0.0954])])
def test_first_convolution_is_the_published_one(network: str, first: list[float]) -> None:
    weight = load_lpips(network).convs[0].weight  # type: ignore[arg-type]
    torch.testing.assert_close(weight.flatten()[:3], torch.tensor(first), rtol=0, atol=5e-5)


@needs_weights
@pytest.mark.parametrize(("network", "value"), [("vgg", 0.3485), ("alex", 0.1486)])
def test_distance_of_uniform_noise_is_the_known_value(network: str, value: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(123)
        a, b = torch.rand(10, 3, 100, 100) * 2 - 1, torch.rand(10, 3, 100, 100) * 2 - 1
    assert load_lpips(network)(a, b).mean().item() == pytest.approx(value, abs=2e-4)


@needs_weights
def test_blur_is_further_from_the_original_than_a_change_of_brightness_of_equal_squared_error() -> None:
    sharp = images(1, size=64)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
    brighter = sharp + (blurred - sharp).square().mean().sqrt()
    lpips = load_lpips("vgg")
    assert lpips(blurred, sharp) > 5 * lpips(brighter, sharp)
