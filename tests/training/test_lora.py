"""LoRA training: what is trained is what is merged or applied afterwards, on any base, and nothing else changes."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from openltx.checkpoints.lora import load_lora
from openltx.conditioning import Reference, initial_state, training_state
from openltx.data.captioned import CaptionedVideo
from openltx.data.encoded import Encoded
from openltx.errors import RunError
from openltx.geometry import LatentShape, patchify
from openltx.models.bundle import LTXModel
from openltx.models.lora import apply, merge
from openltx.models.presets import transformer_preset
from openltx.models.transformer import VideoTransformer
from openltx.pipelines.request import GenerationRequest
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.frozen import FrozenLinear, freeze_in_eight_bits
from openltx.training.loop import run
from openltx.training.lora import BLOCKS, Adapters, LoRAConfig, chosen_layers
from openltx.training.state import load_weights
from openltx.training.tuning import TuneConfig, TuneTask, with_reference, write_lora

CONFIG = LoRAConfig(rank=3, alpha=6.0, targets=BLOCKS)


def transformer() -> VideoTransformer:
    return VideoTransformer(transformer_preset("tiny")).eval()


def randomise(adapters: Adapters) -> None:
    for parameter in adapters.parameters():
        nn.init.normal_(parameter, std=0.2)


def inputs(b: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    tokens, text = torch.randn(b, 6, 16, generator=generator), torch.randn(b, 5, 384, generator=generator)
    t, positions = torch.rand(b, generator=generator), torch.rand(b, 3, 6, generator=generator)
    return tokens, t, positions, text, torch.ones(b, 5, dtype=torch.bool)


@pytest.mark.parametrize("put_on", [merge, apply])
@torch.no_grad()
def test_what_was_trained_is_what_is_merged_or_applied(put_on: Callable, tmp_path: Path, tiny_model: LTXModel) -> None:
    model = transformer()
    plain = copy.deepcopy(model)
    before = plain(*inputs())
    adapters = Adapters(model, CONFIG)
    torch.testing.assert_close(model(*inputs()), before)  # B starts at zero
    randomise(adapters)
    trained = model(*inputs())
    assert float((trained - before).norm() / before.norm()) > 0.05
    for path in write_lora(adapters, tmp_path, "x", tiny_model):
        again = copy.deepcopy(plain)
        put_on(again, [(load_lora(path), 1.0)])
        torch.testing.assert_close(again(*inputs()), trained, rtol=1e-4, atol=1e-5)


def test_only_the_adapters_get_gradients_and_all_of_them_do() -> None:
    model = transformer()
    adapters = Adapters(model, CONFIG)
    randomise(adapters)
    model(*inputs()).square().mean().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapters.parameters())


def test_recomputed_blocks_drop_the_same_inputs() -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = transformer()
        adapters = Adapters(model, replace(CONFIG, dropout=0.5)).train()
        randomise(adapters)
        adapters.set_dropout_seed(7)
        model.checkpoint_blocks = recompute
        model(*inputs()).square().mean().backward()
        gradients.append([parameter.grad for parameter in adapters.parameters()])
    torch.testing.assert_close(*gradients)


def test_dropout_is_drawn_anew_with_each_seed_and_off_in_evaluation() -> None:
    model = transformer()
    adapters = Adapters(model, replace(CONFIG, dropout=0.5)).train()
    randomise(adapters)
    outputs = []
    for seed in (1, 2, 1):
        adapters.set_dropout_seed(seed)
        outputs.append(model(*inputs()))
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    adapters.eval()
    assert torch.equal(model(*inputs()), model(*inputs()))


def test_targets_are_ends_of_names_in_both_spellings() -> None:
    model = transformer()
    assert chosen_layers(model, ["attn1.to_q"]) == [f"transformer_blocks.{i}.attn1.to_q" for i in (0, 1)]
    assert chosen_layers(model, ["proj_in"]) == chosen_layers(model, ["patchify_proj"]) == ["patchify_proj"]
    assert len(chosen_layers(model, BLOCKS)) == 2 * 10
    with pytest.raises(RunError, match=r"ends with to_w\. Those of its blocks are: attn1\.to_k"):
        chosen_layers(model, ["to_q", "to_w"])


@pytest.mark.parametrize("settings", [{"rank": 0}, {"dropout": 1.0}, {"targets": ()}])
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(RunError):
        LoRAConfig(**settings)


@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.01), ("float8", 0.05)])
def test_a_frozen_layer_has_the_gradient_of_the_weight_that_it_stores(kind, tolerance: float) -> None:
    layer = nn.Linear(32, 8).requires_grad_(False)
    frozen = FrozenLinear(layer, kind)
    assert frozen.get_buffer("weight").dtype.itemsize == 1
    stored = frozen.get_buffer("weight").float() * frozen.get_buffer("scale")
    assert float((stored - layer.weight).norm() / layer.weight.norm()) < tolerance
    x = torch.randn(5, 32, requires_grad=True)
    frozen(x).square().sum().backward()
    exact = x.detach().requires_grad_()
    nn.functional.linear(exact, stored, layer.bias).square().sum().backward()
    torch.testing.assert_close(x.grad, exact.grad)


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_a_lora_learns_on_a_base_of_eight_bits(kind) -> None:
    model = transformer()
    exact = model(*inputs()).detach()
    freeze_in_eight_bits(model, kind)
    assert 0 < float((model(*inputs()).detach() - exact).norm() / exact.norm()) < 0.1
    adapters = Adapters(model, LoRAConfig(rank=8, targets=BLOCKS))
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=0.02)
    target = 2 * exact
    losses = []
    for _ in range(15):
        loss = (model(*inputs()) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def examples(count: int = 4, *, references: bool = False) -> list[Encoded]:
    generator = torch.Generator().manual_seed(3)
    video = CaptionedVideo(path=Path("a.mp4"), caption="a red ball")

    def latents() -> torch.Tensor:
        return torch.randn(16, 2, 1, 2, generator=generator)

    return [
        Encoded(
            latents=latents(),
            text=torch.randn(3 + i, 384, generator=generator).bfloat16(),
            fps=8.0,
            caption=video.caption,
            source=video,
            reference=latents() if references else None,
        )
        for i in range(count)
    ]


def task(model: LTXModel, *, references: bool = False, samples: bool = False) -> TuneTask:
    fresh = replace(model, transformer=copy.deepcopy(model.transformer))
    request = GenerationRequest("a red ball", frames=9, size="64x32", fps=8.0, seed=0)
    return TuneTask(
        fresh,
        examples(references=references),
        TuneConfig(batch_size=2, caption_dropout=0.2, first_frame_probability=0.5, first_frame_max_t=0.1),
        OptimConfig(lr=0.01),
        adapters=Adapters(fresh.transformer, LoRAConfig(rank=2, dropout=0.1)),
        validation=[request] if samples else [],
    )


def config(out: Path, steps: int) -> RunConfig:
    return RunConfig(
        steps=steps, out=out, accumulate=2, threads=1, checkpoint_every=2, tensorboard=False, progress=False
    )


def test_a_run_that_goes_on_is_the_uninterrupted_one_and_holds_the_lora_alone(
    tiny_model: LTXModel, tmp_path: Path
) -> None:
    run(task(tiny_model), config(tmp_path / "whole", 4))
    run(task(tiny_model), config(tmp_path / "parts", 2))
    last = task(tiny_model, samples=True)
    run(last, config(tmp_path / "parts", 4))
    whole, parts = load_weights(tmp_path / "whole"), load_weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert all(".lora_" in name for name in whole)
    assert (tmp_path / "parts" / "samples" / "step_00000004_ema_0.mp4").is_file()
    saved = load_lora(tmp_path / "parts" / "lora" / "step_00000004.safetensors")
    assert last.adapters is not None
    last.adapters.load_state_dict(parts)
    for name, change in last.adapters.as_lora().layers.items():
        assert torch.equal(saved.layers[name].down, change.down)
        assert torch.equal(saved.layers[name].up, change.up)


def test_training_sees_a_reference_as_sampling_does() -> None:
    shape, fps = LatentShape(frames=2, height=1, width=2), 8.0
    clean, noise, reference = torch.randn(3, 2, 4, 16).unbind(0)
    t = torch.tensor([0.4, 0.8])
    state, times, counted = training_state(clean, noise, t, shape, fps)
    state, times = with_reference(state, times, reference, shape, fps, causal=True)
    latents = reference.reshape(2, 2, 1, 2, 16).permute(0, 4, 1, 2, 3)
    assert torch.equal(patchify(latents), reference)
    sampled = initial_state(noise, shape, fps, [Reference(latents=latents)])
    assert torch.equal(state.positions, sampled.positions)
    assert torch.equal(state.strength, sampled.strength)
    assert torch.equal(times, sampled.effective_t(t))
    assert torch.equal(state.tokens[:, :4], sampled.tokens[:, :4])
    assert state.num_targets == sampled.num_targets
    assert counted.all()


def test_an_in_context_lora_learns_to_copy_its_reference(tiny_model: LTXModel, tmp_path: Path) -> None:
    learner = task(tiny_model, references=True)
    learner.config = replace(learner.config, caption_dropout=0.0, first_frame_probability=0.0)
    assert learner.batch(0, 0).reference is not None
    run(learner, config(tmp_path, 2))
    batch, generator = learner.batch(0, 0), torch.Generator
    assert batch.reference is not None
    with torch.no_grad():
        loss, _ = learner.loss(batch, 0, generator().manual_seed(0))
        other, _ = learner.loss(batch._replace(reference=batch.reference.flip(0)), 0, generator().manual_seed(0))
    assert float(loss) != float(other)


def test_videos_with_and_without_references_are_not_mixed(tiny_model: LTXModel) -> None:
    mixed = [*examples(1), *examples(1, references=True)]
    with pytest.raises(RunError, match="1 of 2 videos have a reference"):
        TuneTask(tiny_model, mixed, TuneConfig(), OptimConfig(lr=0.1))
