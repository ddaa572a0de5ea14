import torch

from openltx.flow.guidance import Guidance, guide


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    positive, negative = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    return positive, negative


def test_guidance_of_one_is_the_prompt_and_of_zero_the_negative_prompt() -> None:
    positive, negative = pair()
    torch.testing.assert_close(guide(positive, negative, Guidance()), positive)
    torch.testing.assert_close(guide(positive, negative, Guidance(cfg=0.0)), negative)
    assert not Guidance().needs_negative
    assert Guidance(cfg=3.0).needs_negative


def test_guidance_goes_on_beyond_the_prompt_in_a_straight_line() -> None:
    positive, negative = pair()
    torch.testing.assert_close(guide(positive, negative, Guidance(cfg=3.0)), positive + 2 * (positive - negative))


def test_full_rescale_restores_the_deviation_of_the_prompt_in_each_sample() -> None:
    positive, negative = pair()
    rescaled = guide(positive, negative, Guidance(cfg=5.0, rescale=1.0))
    torch.testing.assert_close(rescaled.std(dim=(1, 2)), positive.std(dim=(1, 2)))


def test_rescale_mixes_between_off_and_full() -> None:
    positive, negative = pair()
    off, half, full = (guide(positive, negative, Guidance(cfg=5.0, rescale=r)) for r in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (off + full) / 2)
