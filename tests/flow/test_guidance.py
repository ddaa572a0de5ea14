import pytest
import torch

from openltx.errors import RequestError
from openltx.flow.guidance import Guidance, guidance_curve, guide


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    positive, negative = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    return positive, negative


def test_guidance_of_one_is_the_prompt_and_of_zero_the_negative_prompt() -> None:
    positive, negative = pair()
    torch.testing.assert_close(guide(positive, None, None, Guidance()), positive)
    torch.testing.assert_close(guide(positive, negative, None, Guidance(cfg=0.0)), negative)
    assert not Guidance().needs_negative
    assert Guidance(cfg=3.0).needs_negative


def test_guidance_goes_on_beyond_the_prompt_in_a_straight_line() -> None:
    positive, negative = pair()
    guided = guide(positive, negative, None, Guidance(cfg=3.0))
    torch.testing.assert_close(guided, positive + 2 * (positive - negative))


def test_full_rescale_restores_the_deviation_of_the_prompt_in_each_sample() -> None:
    positive, negative = pair()
    rescaled = guide(positive, negative, None, Guidance(cfg=5.0, rescale=1.0))
    torch.testing.assert_close(rescaled.std(dim=(1, 2)), positive.std(dim=(1, 2)))


def test_rescale_mixes_between_off_and_full() -> None:
    positive, negative = pair()
    off, half, full = (guide(positive, negative, None, Guidance(cfg=5.0, rescale=r)) for r in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (off + full) / 2)


def test_a_projected_negative_has_the_length_that_is_nearest_to_the_prompt() -> None:
    positive, negative = pair()
    guided = guide(positive, negative, None, Guidance(cfg=4.0, cfg_star=True))
    start = (4 * positive - guided) / 3
    for one, other, found in zip(positive, negative, start, strict=True):
        torch.testing.assert_close(found, other * (one * other).sum() / other.square().sum())
        torch.testing.assert_close(((one - found) * other).sum(), torch.tensor(0.0), atol=1e-4, rtol=0)


def test_spatio_temporal_guidance_goes_away_from_the_weakened_network_with_or_without_a_negative_prompt() -> None:
    positive, weak = pair()
    negative = positive.flip(0)
    alone = guide(positive, None, weak, Guidance(stg=2.0))
    torch.testing.assert_close(alone, positive + 2 * (positive - weak))
    both = guide(positive, negative, weak, Guidance(cfg=3.0, stg=2.0))
    torch.testing.assert_close(both, negative + 3 * (positive - negative) + 2 * (positive - weak))


def test_a_curve_takes_the_first_entry_whose_time_is_not_above_t() -> None:
    curve = guidance_curve(
        cfg=[1.0, 6.0, 8.0], stg=[0.0, 4.0, 2.0], rescale=0.5, skip_blocks=[[], [11, 25], [28]], times=[0.996, 0.9, 0.6]
    )
    assert curve.at(1.0).cfg == 1.0
    assert curve.at(0.996) == Guidance(cfg=1.0, rescale=0.5)
    assert curve.at(0.95) == Guidance(cfg=6.0, stg=4.0, skip_blocks=(11, 25), rescale=0.5)
    assert curve.at(0.6).skip_blocks == (28,)
    assert curve.at(0.1) == curve.at(0.7)  # below all times the last entry holds
    assert curve.needs_negative


def test_one_value_serves_all_times() -> None:
    curve = guidance_curve(cfg=3.0, stg=1.0, skip_blocks=[19])
    assert curve.at(1.0) == curve.at(0.001) == Guidance(cfg=3.0, stg=1.0, skip_blocks=(19,))
    assert not guidance_curve().needs_negative


def test_lists_of_other_lengths_than_the_times_are_refused() -> None:
    with pytest.raises(RequestError, match="stg has 2 values for 3 guidance times"):
        guidance_curve(stg=[1.0, 2.0], times=[1.0, 0.5, 0.1])
    with pytest.raises(RequestError, match="no guidance times are given"):
        guidance_curve(cfg=[1.0, 2.0])
