"""Encoding and decoding in pieces gives what the whole pass gives, for every released layout."""

import pytest
import torch
from torch import Tensor

from openltx.models.presets import vae_preset
from openltx.models.vae import streaming
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.models.vae.streaming import decode_pieces, decode_stream, encode_stream, split_frames

RELEASES = pytest.mark.parametrize("release", ["0.9.0", "0.9.1", "0.9.5"])


def random_vae(release: str) -> VideoAutoencoder:
    torch.manual_seed(0)
    vae = VideoAutoencoder(vae_preset(release, base_channels=8, latent_channels=16)).eval()
    for name, tensor in vae.state_dict().items():
        if name.endswith(("scale_shift_table", "bias", "per_channel_scale1", "per_channel_scale2")):
            tensor.normal_(std=0.2)
    return vae


def assert_equal_up_to_rounding(got: Tensor, exact: Tensor) -> None:
    assert got.shape == exact.shape
    assert float((got - exact).abs().max() / exact.abs().max()) < 1e-5


@RELEASES
@pytest.mark.parametrize(("chunk", "piece_bytes"), [(1, 2**23), (2, 2**23), (5, 2**23), (5, 1), (2, 2**14)])
@torch.no_grad()
def test_decoding_in_pieces_is_decoding_whole(
    release: str, chunk: int, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PIECE_BYTES", piece_bytes)
    vae = random_vae(release)
    latents = torch.randn(2, 16, 4, 2, 3)
    t = 0.05 if vae.config.timestep_conditioning else None

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    pieces = list(decode_stream(vae, latents, t, generator=seeded(), chunk=chunk))
    assert len(pieces) > 1
    assert_equal_up_to_rounding(torch.cat(pieces, 2), vae.decode(latents, t, generator=seeded()))


@RELEASES
@pytest.mark.parametrize(("frames", "piece_bytes"), [(8, 2**23), (16, 2**23), (16, 1)])
@torch.no_grad()
def test_encoding_in_pieces_is_encoding_whole(
    release: str, frames: int, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PIECE_BYTES", piece_bytes)
    vae = random_vae(release)
    video = torch.rand(1, 3, 33, 64, 96) * 2 - 1
    pieces = list(encode_stream(vae, split_frames(video, frames)))
    assert len(pieces) == 32 // frames or piece_bytes == 1
    assert_equal_up_to_rounding(torch.cat(pieces, 2), vae.encode(video))


@torch.no_grad()
def test_a_single_frame_streams_too() -> None:
    vae = random_vae("0.9.5")
    latents, video = torch.randn(1, 16, 1, 2, 2), torch.rand(1, 3, 1, 64, 64)
    assert_equal_up_to_rounding(torch.cat(list(decode_stream(vae, latents, 0.0)), 2), vae.decode(latents, 0.0))
    assert_equal_up_to_rounding(torch.cat(list(encode_stream(vae, split_frames(video))), 2), vae.encode(video))


@torch.no_grad()
def test_frames_come_before_the_last_latents_are_read() -> None:
    """Nothing waits for the end of a long video: the decoder of 0.9.5 looks about 22 latents ahead."""
    vae = random_vae("0.9.5")
    read = 0

    def counted():
        nonlocal read
        for piece in torch.randn(1, 16, 40, 1, 1).split(1, 2):
            read += 1
            yield piece

    noise = streaming.noise_maps(torch.zeros(1, 16, 1, 1, 1), torch.Generator())
    stream = streaming._decoder(vae.decoder, counted(), torch.zeros(1), noise)
    first = next(stream)
    assert first.shape[2] <= 8
    assert 15 < read < 30
    assert sum(piece.shape[2] for piece in stream) + first.shape[2] == 8 * 39 + 1


@RELEASES
@torch.no_grad()
def test_latents_that_come_in_uneven_pieces_are_decoded_as_the_whole(release: str) -> None:
    vae = random_vae(release)
    latents = torch.randn(1, 16, 9, 2, 2)
    t = 0.05 if vae.config.timestep_conditioning else None

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    pieces = decode_pieces(vae, latents.split([4, 1, 4], 2), t, 0.3, seeded())
    whole = vae.decode(latents, t, 0.0, 0.3, seeded())
    assert_equal_up_to_rounding(torch.cat(list(pieces), 2), whole)


def test_of_no_latents_there_are_no_frames() -> None:
    assert list(decode_pieces(random_vae("0.9.0"), [])) == []
