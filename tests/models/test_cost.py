"""The cost model against what torch counts on the same networks, without computing them."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from openltx.geometry import LatentShape
from openltx.models import cost
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder

TRANSFORMERS = pytest.mark.parametrize("size", ["tiny", "2b", "13b"])
VAES = pytest.mark.parametrize(
    "config",
    [vae_preset("tiny"), vae_preset("0.9.0"), vae_preset("0.9.1"), vae_preset("0.9.5")],
    ids=["tiny", "0.9.0", "0.9.1", "0.9.5"],
)
WITHIN = 0.02


def counted(work: object) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()  # type: ignore[operator]
    return counter.get_total_flops()


@TRANSFORMERS
def test_the_transformers_operations(size: str) -> None:
    config, grid, text_tokens = transformer_preset(size), LatentShape(frames=4, height=10, width=16), 256
    with torch.device("meta"):
        model = VideoTransformer(config).eval()
        tokens = torch.zeros(1, grid.num_tokens, config.in_channels)
        text, positions = torch.zeros(1, text_tokens, config.caption_channels), torch.zeros(1, 3, grid.num_tokens)
        t = torch.zeros(1, 1)
    mask = torch.ones(1, text_tokens, dtype=torch.bool)
    made = counted(lambda: model.prepare(positions, text, mask))
    assert made == pytest.approx(cost.prepare_flops(config, text_tokens), rel=WITHIN)
    with torch.no_grad():
        context = model.prepare(positions, text, mask)
    taken = counted(lambda: model.step(tokens, t, None, context))
    assert taken == pytest.approx(cost.step_flops(config, grid.num_tokens, text_tokens), rel=WITHIN)


@VAES
@pytest.mark.parametrize("frames", [1, 4])
def test_the_vaes_operations(config: VAEConfig, frames: int) -> None:
    grid = LatentShape(frames=frames, height=3, width=2)
    with torch.device("meta"):
        vae = VideoAutoencoder(config).eval()
        video = torch.zeros(1, 3, 8 * frames - 7, 96, 64)
        latents = torch.zeros(1, config.latent_channels, frames, 3, 2)
        t = torch.zeros(1) if config.timestep_conditioning else None
    assert counted(lambda: vae.encoder(video)) == pytest.approx(cost.encode_flops(config, grid), rel=WITHIN)
    assert counted(lambda: vae.decoder(latents, t)) == pytest.approx(cost.decode_flops(config, grid), rel=WITHIN)


@TRANSFORMERS
def test_the_transformers_parameters(size: str) -> None:
    config = transformer_preset(size)
    with torch.device("meta"):
        model = VideoTransformer(config)
    assert sum(p.numel() for p in model.parameters()) == cost.transformer_parameters(config)
    assert sum(p.numel() for p in model.transformer_blocks[0].parameters()) == cost.block_parameters(config)


@VAES
def test_the_vaes_parameters(config: VAEConfig) -> None:
    with torch.device("meta"):
        vae = VideoAutoencoder(config)
    for half, number in (
        (vae.encoder, cost.encoder_parameters(config)),
        (vae.decoder, cost.decoder_parameters(config)),
    ):
        assert sum(p.numel() for p in half.parameters()) == pytest.approx(number, rel=0.01)


def test_a_streamed_decoder_holds_the_same_however_long_the_video() -> None:
    config = vae_preset("0.9.5")

    def numbers(frames: int, *, streamed: bool) -> int:
        return cost.decode_numbers(config, LatentShape(frames=frames, height=16, width=24), streamed=streamed)

    assert numbers(4, streamed=True) == numbers(400, streamed=True)
    assert numbers(16, streamed=False) > 3 * numbers(4, streamed=False)
    assert numbers(16, streamed=True) < numbers(16, streamed=False) / 3
