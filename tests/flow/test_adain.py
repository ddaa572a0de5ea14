"""AdaIN: whose statistics come out, and what happens where there are none."""

import pytest
import torch

from openltx.flow.adain import adain


def test_every_channel_takes_over_mean_and_unbiased_deviation() -> None:
    z, reference = 3 * torch.randn(2, 4, 3, 4, 5) + 2, torch.randn(2, 4, 2, 2, 3)
    moved = adain(z, reference)
    for statistic in (torch.mean, torch.std):
        ours, wanted = (statistic(x.flatten(2), dim=-1) for x in (moved, reference))
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    mean, std = z[1, 2].mean(), z[1, 2].std(correction=1)
    expected = (z[1, 2] - mean) / std * reference[1, 2].std(correction=1) + reference[1, 2].mean()
    torch.testing.assert_close(moved[1, 2], expected)


def test_the_factor_mixes_what_was_and_what_would_be() -> None:
    z, reference = torch.randn(1, 2, 3, 4, 5), 2 * torch.randn(1, 2, 3, 4, 5)
    assert torch.equal(adain(z, reference, 0.0), z)
    torch.testing.assert_close(adain(z, reference, 0.3), 0.7 * z + 0.3 * adain(z, reference))


def test_it_does_not_matter_whether_both_are_normalised() -> None:
    z, reference, scale = torch.randn(1, 3, 2, 4, 4), torch.randn(1, 3, 2, 2, 2), torch.tensor([2.0, 0.5, 3.0])
    scale = scale[:, None, None, None]
    torch.testing.assert_close(adain(z * scale + 1, reference * scale + 1), adain(z, reference) * scale + 1)


@pytest.mark.parametrize("shape", [(1, 2, 3, 4, 5), (1, 2, 1, 1, 1)])
def test_a_channel_without_contrast_becomes_the_mean_and_never_nan(shape: tuple[int, ...]) -> None:
    reference = torch.randn(1, 2, 2, 2, 2)
    moved = adain(torch.full(shape, 3.0), reference)
    torch.testing.assert_close(moved, reference.mean((2, 3, 4), keepdim=True).expand(shape))


def test_the_number_format_stays() -> None:
    z = torch.randn(1, 2, 3, 4, 5).bfloat16()
    assert adain(z, torch.randn(1, 2, 3, 4, 5)).dtype == torch.bfloat16
