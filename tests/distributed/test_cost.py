"""The cost of training against what torch counts; and the tables in docs/scaling.md against what they come from."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training_scale import sharding_table, table
from openltx.distributed.cost import BLOCK_BYTES, H100, Setup, activation_bytes, training_cost
from openltx.geometry import LatentShape
from openltx.kernels import attention, library
from openltx.models.presets import transformer_preset
from openltx.models.transformer import Block, TransformerConfig, VideoTransformer, rope_table


@pytest.fixture
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerators run: no compiled kernels, and an attention that keeps no logits."""

    def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    monkeypatch.setattr(library, "native", lambda: None)
    monkeypatch.setattr(attention, "_matrix_products", fused)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_operations_of_a_step(recompute: bool) -> None:
    config, grid, text_tokens = transformer_preset("2b"), LatentShape(frames=4, height=10, width=16), 256
    config = TransformerConfig(**{**vars(config), "num_layers": 4})
    with torch.device("meta"):
        model = VideoTransformer(config)
        tokens = torch.zeros(1, grid.num_tokens, config.in_channels)
        text, positions = torch.zeros(1, text_tokens, config.caption_channels), torch.zeros(1, 3, grid.num_tokens)
        t = torch.zeros(1)
    model.checkpoint_blocks = recompute
    mask = torch.ones(1, text_tokens, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        model(tokens, t, positions, text, mask).sum().backward()
    setup = Setup(devices=1, videos=1, tokens=grid.num_tokens, text_tokens=text_tokens, recompute=recompute)
    assert counter.get_total_flops() == pytest.approx(training_cost(config, setup).flops, rel=0.03)


@pytest.mark.usefixtures("plain_torch")
def test_what_a_block_keeps_for_its_backward_pass() -> None:
    config = TransformerConfig(num_layers=1, num_heads=4, head_dim=64, caption_channels=64)
    block, n = Block(config).bfloat16(), 256
    h = torch.randn(1, n, config.width, dtype=torch.bfloat16, requires_grad=True)
    modulation = torch.randn(1, 1, 6, config.width, requires_grad=True)
    key, value = (torch.randn(1, 4, config.width, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    weights = {parameter.untyped_storage()._cdata for parameter in block.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage()._cdata not in weights:
            kept[x.untyped_storage()._cdata] = x
        return x

    rotation = rope_table(torch.rand(1, 3, n), config)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        block(h, modulation, None, rotation, key, value, None)
    counted = sum(x.untyped_storage().nbytes() for x in kept.values()) / (n * config.width)
    assert counted == pytest.approx(BLOCK_BYTES, rel=0.03)


def test_more_devices_hold_less_each_and_recomputing_saves_memory() -> None:
    config = transformer_preset("2b")
    one, many = (training_cost(config, Setup(devices=n, videos=n, tokens=4992)) for n in (1, 64))
    assert many.state_bytes == pytest.approx(one.state_bytes / 64)
    assert many.compute_seconds == pytest.approx(one.compute_seconds)
    assert one.traffic_seconds == 0
    assert many.traffic_seconds > training_cost(config, Setup(devices=8, videos=8, tokens=4992)).traffic_seconds
    assert activation_bytes(config, 1000.0, recompute=True) < activation_bytes(config, 1000.0, recompute=False) / 5
    assert many.memory < H100.memory


def test_the_tables_in_the_documentation_are_what_the_model_computes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    assert table() in page
    assert sharding_table() in page
