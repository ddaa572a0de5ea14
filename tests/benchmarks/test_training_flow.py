"""The training benchmark at a toy size: both contenders learn the same from the same draws."""

from pathlib import Path

import pytest
import torch

from benchmarks.training_flow import compare, work_of
from openltx.data.captioned import CaptionedVideo
from openltx.data.encoded import Encoded
from openltx.models.transformer import TransformerConfig

CONFIG = TransformerConfig(num_layers=2, num_heads=2, head_dim=32, caption_channels=12, in_channels=8, out_channels=8)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # in diffusers, under autocast
@pytest.mark.parametrize("text_length", [None, 16])
def test_the_recipe_and_our_loop_have_the_same_loss(text_length: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    examples = [
        Encoded(
            latents=torch.randn(8, 2, 2, 2, generator=generator),
            text=torch.randn(3 + i, 12, generator=generator),
            fps=24.0,
            caption="",
            source=CaptionedVideo(path=Path("x.mp4"), caption=""),
        )
        for i in range(4)
    ]
    found = compare(work_of(CONFIG, examples, batch=2), 8, 1, compiled=False, text_length=text_length)
    assert found["tokens_per_step"] == 16
    assert abs(found["loss_difference"]) < 0.01
    assert found["ratio"] > 0
