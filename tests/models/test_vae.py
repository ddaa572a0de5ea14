"""The Video-VAE's laws: causality, sizes, noise per sample, statistics."""

import pytest
import torch

from openltx.errors import RequestError
from openltx.kernels.volume import depth_to_space, space_to_depth
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import (
    VideoAutoencoder,
    patchify_pixels,
    tone_map_latents,
    unpatchify_pixels,
)
from openltx.models.vae.layers import CausalConv3d
from openltx.noise import randn, seeded


@pytest.fixture(scope="module")
def vae() -> VideoAutoencoder:
    torch.manual_seed(0)
    model = VideoAutoencoder(vae_preset("tiny")).eval()
    statistics = model.per_channel_statistics
    statistics.mean.copy_(torch.randn(16) * 0.3)
    statistics.std.copy_(torch.rand(16) + 0.5)
    for parameter in model.parameters():
        if parameter.ndim == 3:  # per_channel_scale: zero at the start of training, but not in a trained decoder
            torch.nn.init.constant_(parameter, 0.5)
    return model


@pytest.mark.parametrize("layout", ["0.9.0", "0.9.1", "0.9.5", "tiny"])
@torch.no_grad()
def test_the_first_frame_alone_gives_the_first_latent_of_the_whole(layout: str) -> None:
    torch.manual_seed(1)
    model = VideoAutoencoder(vae_preset(layout, base_channels=8, latent_channels=16)).eval()
    video = torch.rand(1, 3, 17, 64, 32) * 2 - 1
    whole, alone = model.encode(video), model.encode(video[:, :, :1])
    assert whole.shape == (1, 16, 3, 2, 1)
    torch.testing.assert_close(whole[:, :, :1], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole[:, :, :2], model.encode(video[:, :, :9]), rtol=1e-4, atol=1e-5)
    assert (whole[:, :, 1] - whole[:, :, 2]).abs().max() > 1e-3


@torch.no_grad()
def test_decode_gives_8f_minus_7_frames(vae: VideoAutoencoder) -> None:
    assert vae.decode(torch.randn(2, 16, 3, 1, 2)).shape == (2, 3, 17, 32, 64)


@torch.no_grad()
def test_a_batch_decodes_as_its_singles(vae: VideoAutoencoder) -> None:
    latents = torch.randn(2, 16, 2, 1, 1)
    together = vae.decode(latents, t=0.1, generator=seeded(3, 4))
    singles = [vae.decode(latents[i : i + 1], t=0.1, generator=seeded(3 + i)) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_decode_mixes_noise_in_normalised_space(vae: VideoAutoencoder) -> None:
    latents = torch.randn(1, 16, 2, 1, 1)
    noise = randn(latents.shape, torch.Generator().manual_seed(5), device=latents.device, dtype=latents.dtype)
    after_noise = torch.Generator().manual_seed(5)
    randn(latents.shape, after_noise, device=latents.device, dtype=latents.dtype)
    by_hand = vae.decode(0.7 * latents + 0.3 * noise, t=0.1, noise_scale=0.0, generator=after_noise)
    torch.testing.assert_close(
        vae.decode(latents, t=0.1, noise_scale=0.3, generator=torch.Generator().manual_seed(5)), by_hand
    )


@torch.no_grad()
def test_the_decoder_listens_to_t(vae: VideoAutoencoder) -> None:
    latents = torch.randn(1, 16, 1, 1, 1)
    low, high = (
        vae.decode(latents, t=t, noise_scale=0.0, generator=torch.Generator().manual_seed(0)) for t in (0.0, 0.2)
    )
    assert (low - high).abs().max() > 1e-3


@torch.no_grad()
def test_a_decoder_without_timestep_conditioning_refuses_t() -> None:
    model = VideoAutoencoder(vae_preset("0.9.0", base_channels=8, latent_channels=16))
    with pytest.raises(RequestError, match="not conditioned on a timestep"):
        model.decode(torch.randn(1, 16, 1, 1, 1), t=0.05)


@torch.no_grad()
def test_a_posterior_sample_differs_from_the_mean_by_its_deviation(vae: VideoAutoencoder) -> None:
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    mean, log_variance = vae.encoder(video)
    drawn = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    expected = vae.normalise(mean + (0.5 * log_variance).exp() * drawn)
    torch.testing.assert_close(vae.encode(video, torch.Generator().manual_seed(2)), expected)
    assert (log_variance == log_variance[:, :1]).all()  # uniform log-variance: one for all channels


def test_normalising_is_undone(vae: VideoAutoencoder) -> None:
    z = torch.randn(1, 16, 2, 3, 4)
    torch.testing.assert_close(vae.unnormalise(vae.normalise(z)), z)


def test_patching_pixels_is_undone_and_puts_columns_outside() -> None:
    video = torch.randn(1, 3, 2, 8, 8)
    patched = patchify_pixels(video, 4)
    torch.testing.assert_close(unpatchify_pixels(patched, 4), video)
    channel, row, column = 2, 1, 3
    assert torch.equal(patched[:, channel * 16 + column * 4 + row], video[:, channel, :, row::4, column::4])


def test_space_to_depth_is_undone() -> None:
    x = torch.randn(1, 2, 4, 6, 8)
    assert torch.equal(depth_to_space(space_to_depth(x, (2, 2, 2)), (2, 2, 2)), x)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)])
@torch.no_grad()
def test_a_still_frame_takes_the_short_way_to_the_same_result(causal: bool, stride: tuple[int, int, int]) -> None:
    conv = CausalConv3d(3, 5, causal=causal, stride=stride)
    x = torch.randn(2, 3, 1, 8, 8)
    torch.testing.assert_close(conv(x), conv.conv(x.repeat(1, 1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


def test_tone_mapping_pulls_large_latents_in_and_leaves_zero_alone() -> None:
    z = torch.tensor([0.0, 0.5, 4.0, -4.0])
    mapped = tone_map_latents(z, 0.6)
    assert mapped[0] == 0
    assert mapped[2] < 0.7 * z[2]
    assert mapped[3] == -mapped[2]
    torch.testing.assert_close(tone_map_latents(z, 0.0), z)
