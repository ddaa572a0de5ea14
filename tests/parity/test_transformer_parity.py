"""Our transformer against the independent implementation in diffusers, at tiny size with random weights, in float32."""

import pytest
import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

from openltx.checkpoints.keys import TRANSFORMER_TABLE
from openltx.geometry import LatentShape, token_positions
from openltx.models.transformer import TransformerConfig, VideoTransformer

# widths of 64 and 80 leave 4 and 2 channels that the rotary embedding must not turn
CONFIGS = {
    "width 64": TransformerConfig(
        num_layers=2, num_heads=4, head_dim=16, caption_channels=24, in_channels=8, out_channels=8
    ),
    "width 80": TransformerConfig(
        num_layers=3, num_heads=2, head_dim=40, caption_channels=16, in_channels=8, out_channels=8
    ),
}
SHAPE = LatentShape(frames=3, height=4, width=5)
FPS = 25.0


@pytest.fixture(params=CONFIGS, scope="module")
def pair(request) -> tuple[VideoTransformer, LTXVideoTransformer3DModel]:
    """The two models with the same weights, all of them random (also those that training starts at zero)."""
    config = CONFIGS[request.param]
    theirs = LTXVideoTransformer3DModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        cross_attention_dim=config.width,
        num_layers=config.num_layers,
        caption_channels=config.caption_channels,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim == 2 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    ours = VideoTransformer(config).eval()
    ours.load_state_dict(TRANSFORMER_TABLE.inverse.apply(theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("times", ["uniform", "per sample", "per token"])
@torch.no_grad()
def test_velocity_is_that_of_diffusers(pair, times: str, masked: bool, causal: bool) -> None:
    ours, theirs = pair
    b, n = 2, SHAPE.num_tokens
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(b, n, 8, generator=generator)
    text = torch.randn(b, 7, ours.config.caption_channels, generator=generator)
    text_mask = torch.ones(b, 7, dtype=torch.bool)
    if masked:
        text_mask[0, 4:] = False
    positions = token_positions(SHAPE, FPS, causal).expand(b, -1, -1)
    t = {
        "uniform": torch.full((b,), 0.7),
        "per sample": torch.tensor([0.9, 0.3]),
        "per token": torch.where(torch.arange(n) < 20, 0.0, torch.tensor([0.9, 0.3])[:, None]),
    }[times]

    expected = theirs(
        hidden_states=tokens,
        encoder_hidden_states=text,
        timestep=t.reshape(b, -1) * 1000,
        encoder_attention_mask=text_mask,
        video_coords=positions,
        return_dict=False,
    )[0]
    assert _relative_error(ours(tokens, t, positions, text, text_mask), expected) <= 1e-5


def _relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_grid_positions_are_those_diffusers_derives_from_the_frame_rate(pair) -> None:
    ours, theirs = pair
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(1, SHAPE.num_tokens, 8, generator=generator)
    text = torch.randn(1, 5, ours.config.caption_channels, generator=generator)
    mask = torch.ones(1, 5, dtype=torch.bool)
    t = torch.tensor([0.5])
    expected = theirs(
        hidden_states=tokens,
        encoder_hidden_states=text,
        timestep=t * 1000,
        encoder_attention_mask=mask,
        num_frames=SHAPE.frames,
        height=SHAPE.height,
        width=SHAPE.width,
        rope_interpolation_scale=(8 / FPS, 32, 32),
        return_dict=False,
    )[0]
    positions = token_positions(SHAPE, FPS, causal=False)[None]
    # the frame times are rounded differently (8/25 first), and the fastest angles multiply that by theta
    assert _relative_error(ours(tokens, t, positions, text, mask), expected) <= 1e-3
