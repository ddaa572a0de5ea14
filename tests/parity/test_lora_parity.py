"""LoRA files as diffusers and PEFT write and read them, and what they make of the transformer."""

from pathlib import Path

import peft
import pytest
import torch
from diffusers.loaders import LTXVideoLoraLoaderMixin
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

from openltx.checkpoints import load_lora
from openltx.checkpoints.keys import TRANSFORMER_TABLE
from openltx.models.lora import apply, merge
from openltx.models.transformer import TransformerConfig, VideoTransformer

CONFIG = TransformerConfig(num_layers=2, num_heads=2, head_dim=16, caption_channels=12, in_channels=8, out_channels=8)
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "time_embed.linear", "proj_out"]
N = 12


def random_(parameter: torch.Tensor, generator: torch.Generator) -> None:
    with torch.no_grad():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)


def theirs() -> LTXVideoTransformer3DModel:
    model = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        num_layers=2, caption_channels=12,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        random_(parameter, generator)
    return model


def ours(weights: dict[str, torch.Tensor]) -> VideoTransformer:
    model = VideoTransformer(CONFIG).eval()
    model.load_state_dict(TRANSFORMER_TABLE.inverse.apply(weights))
    return model


def write(path: Path, alpha: int, layout: str) -> Path:
    """What PEFT trains in a transformer, written by diffusers; "comfyui" as the official trainer writes it too."""
    model = theirs()
    model.add_adapter(peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=TARGETS))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            random_(parameter, generator)
    layers = peft.get_peft_model_state_dict(model)
    settings = model.peft_config["default"].to_dict()
    settings["target_modules"] = sorted(settings["target_modules"])
    LTXVideoLoraLoaderMixin.save_lora_weights(
        path.parent,
        transformer_lora_layers=layers,
        weight_name=path.name,
        transformer_lora_adapter_metadata=settings if layout == "diffusers" else None,
    )
    if layout == "comfyui":
        from safetensors.torch import load_file, save_file

        tensors = load_file(path)
        save_file({name.replace("transformer.", "diffusion_model.", 1): t for name, t in tensors.items()}, path)
    return path


@pytest.mark.parametrize("put_on", [merge, apply])
@pytest.mark.parametrize(
    ("layout", "alpha", "strength"), [("diffusers", 6, 1.0), ("comfyui", 4, 1.0), ("diffusers", 4, -0.7)]
)
@torch.no_grad()
def test_the_same_file_at_the_same_strength_is_the_same_network(
    tmp_path: Path, put_on, layout: str, alpha: int, strength: float
) -> None:
    path = write(tmp_path / "style.safetensors", alpha, layout)
    model = theirs()
    changed = ours(model.state_dict())
    put_on(changed, [(load_lora(path), strength)])

    state, metadata = LTXVideoLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
    before = run_theirs(model)
    LTXVideoLoraLoaderMixin.load_lora_into_transformer(state, model, adapter_name="style", metadata=metadata)
    model.set_adapters("style", strength)
    expected = run_theirs(model)
    assert float((before - expected).norm() / expected.norm()) > 0.1

    tokens, text, positions = inputs()
    got = changed(tokens, torch.tensor([0.6]), positions, text, torch.ones(1, 5, dtype=torch.bool))
    assert float((got - expected).abs().max() / expected.abs().max()) <= 1e-5


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    tokens, text = torch.randn(1, N, 8, generator=generator), torch.randn(1, 5, 12, generator=generator)
    return tokens, text, torch.rand(1, 3, N, generator=generator)


def run_theirs(model: LTXVideoTransformer3DModel) -> torch.Tensor:
    tokens, text, positions = inputs()
    return model(
        hidden_states=tokens,
        encoder_hidden_states=text,
        timestep=torch.tensor([[600.0]]),
        encoder_attention_mask=torch.ones(1, 5, dtype=torch.bool),
        video_coords=positions,
        return_dict=False,
    )[0]
