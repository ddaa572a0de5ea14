"""LoRAs trained here beside PEFT's: the same layers, gradients and steps, and files that diffusers reads."""

from pathlib import Path

import peft
import pytest
import torch
from diffusers.loaders import LTXVideoLoraLoaderMixin
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

from openltx.checkpoints.keys import TRANSFORMER_TABLE
from openltx.checkpoints.lora import save_lora
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.training.lora import BLOCKS, Adapters, LoRAConfig

CONFIG = TransformerConfig(num_layers=2, num_heads=2, head_dim=16, caption_channels=12, in_channels=8, out_channels=8)
N, RANK, ALPHA = 12, 4, 6.0


def theirs() -> LTXVideoTransformer3DModel:
    model = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        num_layers=2, caption_channels=12,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
    return model


def ours(model: LTXVideoTransformer3DModel) -> tuple[VideoTransformer, Adapters]:
    transformer = VideoTransformer(CONFIG).eval()
    transformer.load_state_dict(TRANSFORMER_TABLE.inverse.apply(model.state_dict()))
    return transformer, Adapters(transformer, LoRAConfig(rank=RANK, alpha=ALPHA, targets=BLOCKS))


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    tokens, target = torch.randn(2, 2, N, 8, generator=generator).unbind(0)
    return (
        tokens,
        target,
        torch.randn(2, 5, 12, generator=generator),
        torch.rand(1, 3, N, generator=generator).expand(2, -1, -1),
    )


def run_theirs(model: LTXVideoTransformer3DModel) -> torch.Tensor:
    tokens, _, text, positions = data()
    mask = torch.ones(2, 5, dtype=torch.bool)
    return model(tokens, text, torch.full((2, 1), 600.0), mask, video_coords=positions, return_dict=False)[0]


def run_ours(model: VideoTransformer) -> torch.Tensor:
    tokens, _, text, positions = data()
    return model(tokens, torch.full((2,), 0.6), positions, text, torch.ones(2, 5, dtype=torch.bool))


def train(parameters: list[torch.nn.Parameter], forward) -> list[float]:
    optimizer, losses = torch.optim.AdamW(parameters, lr=0.01), []
    for _ in range(4):
        loss = (forward() - data()[1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_training_takes_pefts_steps() -> None:
    model = theirs()
    transformer, adapters = ours(model)
    model.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=list(BLOCKS)))
    lora = {name: p for name, p in model.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for name, change in zip(adapters.names, adapters.changes(), strict=True):
            change.lora_A.copy_(lora[f"{TRANSFORMER_TABLE.rename(name)}.lora_A.default.weight"])
    assert len(lora) == 2 * len(adapters.names)  # the same layers

    expected = train(list(lora.values()), lambda: run_theirs(model))
    assert train(list(adapters.parameters()), lambda: run_ours(transformer)) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
@torch.no_grad()
def test_diffusers_reads_what_is_saved(tmp_path: Path, layout) -> None:
    model = theirs()
    transformer, adapters = ours(model)
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "style.safetensors"
    save_lora(path, adapters.as_lora(), layout)
    state, metadata = LTXVideoLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
    LTXVideoLoraLoaderMixin.load_lora_into_transformer(state, model, adapter_name="style", metadata=metadata)
    expected, got = run_theirs(model), run_ours(transformer)
    assert float((got - expected).abs().max() / expected.abs().max()) <= 1e-5
