"""Tiles: exact where the decoder does not look sideways, close where it does, and one tile is no tile."""

import itertools

import pytest
import torch

from openltx.errors import RequestError
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.models.vae.tiling import Tile, _fades, decode_tiles


def random_vae(release: str, *, sideways: bool) -> VideoAutoencoder:
    """Random weights; without ``sideways`` no convolution looks beyond its own column."""
    torch.manual_seed(0)
    vae = VideoAutoencoder(vae_preset(release, base_channels=8, latent_channels=16)).eval()
    for name, tensor in vae.state_dict().items():
        if name.endswith(("scale_shift_table", "bias", "per_channel_scale1", "per_channel_scale2")):
            tensor.normal_(std=0.2)
        if tensor.ndim == 5 and tensor.shape[-1] == 3 and not sideways:
            middle = tensor[..., 1, 1].clone()
            tensor.zero_()
            tensor[..., 1, 1] = 3 * middle
    return vae


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("release", ["0.9.0", "0.9.1", "0.9.5"])
@torch.no_grad()
def test_a_decoder_that_does_not_look_sideways_is_tiled_exactly(release: str) -> None:
    """So each pixel comes from its own tile, weights are 1 together, and the injected noise (0.9.1) is the whole's."""
    vae = random_vae(release, sideways=False)
    latents = torch.randn(1, 16, 3, 5, 9)
    t = 0.05 if vae.config.timestep_conditioning else None
    whole = vae.decode(latents, t, generator=seeded())
    tiles = torch.cat(list(decode_tiles(vae, latents, t, generator=seeded(), tile=Tile(128, 64))), 2)
    assert tiles.shape == whole.shape
    assert float((tiles - whole).abs().max() / whole.abs().max()) < 1e-5


@torch.no_grad()
def test_a_wider_overlap_comes_closer() -> None:
    vae = random_vae("0.9.5", sideways=True)
    latents = torch.randn(1, 16, 2, 4, 14)
    whole = vae.decode(latents, 0.05, generator=seeded())
    errors = []
    for tile in (Tile(256, 32), Tile(256, 128)):
        tiles = torch.cat(list(decode_tiles(vae, latents, 0.05, generator=seeded(), tile=tile)), 2)
        errors.append(float((tiles - whole).norm() / whole.norm()))
    assert errors[1] < 0.8 * errors[0]


@torch.no_grad()
def test_one_tile_is_the_whole() -> None:
    vae = random_vae("0.9.1", sideways=True)
    latents = torch.randn(1, 16, 2, 3, 4)
    whole = vae.decode(latents, 0.05, generator=seeded())
    tiles = torch.cat(list(decode_tiles(vae, latents, 0.05, generator=seeded(), tile=Tile(128, 64))), 2)
    torch.testing.assert_close(tiles, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [96, 128, 160, 224, 512, 736])
def test_tiles_cover_a_side_overlap_enough_and_weigh_one_together(length: int) -> None:
    tile = Tile(128, 64)
    places = tile.places(length)
    assert places[0][0] == 0
    assert places[-1][1] == length
    assert all(end - start == min(128, length) and start % 32 == 0 for start, end in places)
    assert all(before[1] - after[0] >= 64 for before, after in itertools.pairwise(places))
    total = torch.zeros(length)
    for (start, end), weight in zip(places, _fades(places), strict=True):
        assert (weight > 0).all()
        total[start:end] += weight
    torch.testing.assert_close(total, torch.ones(length))


@torch.no_grad()
def test_the_video_grows_on_the_canvas_that_is_given() -> None:
    vae = random_vae("0.9.5", sideways=True)
    made: list[torch.Tensor] = []

    def canvas(shape: tuple[int, ...]) -> torch.Tensor:
        made.append(torch.zeros(shape))
        return made[-1]

    pieces = list(decode_tiles(vae, torch.randn(1, 16, 2, 6, 6), 0.0, tile=Tile(128, 32), canvas=canvas))
    assert [list(canvas.shape) for canvas in made] == [[9, 1, 3, 192, 192]]
    assert torch.equal(torch.cat(pieces, 2), made[0].movedim(0, 2))


@pytest.mark.parametrize(("size", "overlap"), [(100, 32), (128, 16), (128, 96), (128, 0)])
def test_tiles_off_the_grid_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(RequestError, match="multiples of 32"):
        Tile(size, overlap)
