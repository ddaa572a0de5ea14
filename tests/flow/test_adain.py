"""AdaIN by its formula, against numpy."""

import numpy as np
import torch

from openltx.flow.adain import adain


def test_latents_take_over_mean_and_unbiased_deviation_of_each_sample_and_channel() -> None:
    z, reference = torch.randn(2, 3, 4, 2, 5), 3 + 2 * torch.randn(2, 3, 2, 4, 5)
    got = adain(z, reference, 1.0).numpy()
    for b in range(2):
        for c in range(3):
            own, other = z[b, c].numpy().astype(np.float64), reference[b, c].numpy().astype(np.float64)
            expected = (own - own.mean()) / own.std(ddof=1) * other.std(ddof=1) + other.mean()
            np.testing.assert_allclose(got[b, c], expected, rtol=1e-4, atol=1e-5)


def test_the_factor_goes_from_nothing_to_all() -> None:
    z, reference = torch.randn(1, 3, 4, 2, 5), 3 + 2 * torch.randn(1, 3, 4, 2, 5)
    whole = adain(z, reference, 1.0)
    assert adain(z, reference, 0.0).equal(z)
    torch.testing.assert_close(adain(z, reference, 0.25), 0.75 * z + 0.25 * whole)


def test_a_constant_channel_becomes_the_reference_s_mean() -> None:
    z, reference = torch.full((1, 2, 3, 2, 2), 7.0), 3 + torch.randn(1, 2, 3, 2, 2)
    expected = reference.mean((2, 3, 4), keepdim=True).expand_as(z)
    torch.testing.assert_close(adain(z, reference), expected)
