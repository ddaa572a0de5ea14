"""Distillation: a student of a tiny teacher comes to end where that does, in fewer steps and without guidance."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import openltx
from openltx.data.latents import Example
from openltx.errors import RequestError, RunError
from openltx.flow.path import TokenState
from openltx.models.bundle import LTXModel
from openltx.models.presets import transformer_preset
from openltx.models.transformer import VideoTransformer, init_weights
from openltx.training.conditions import ConditionMix
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.distill import DistillConfig, DistillTask
from openltx.training.export import distilled_times, export, trained_transformer
from openltx.training.flow import FlowConfig, inference_schedule
from openltx.training.loop import run

FLOW = FlowConfig(tokens_per_batch=96, caption_dropout=0.0, conditions=ConditionMix(first_frame=0.25))
CONFIG = DistillConfig(steps=3, substeps=3, cfg=2.0, tokens=64)
OPTIM = OptimConfig(kind="muon", lr=2e-3, muon_lr=0.02, schedule="trapezoid", warmup=5, cooldown=0.5)
SAMPLING = {"frames": 17, "width": 64, "height": 64, "fps": 24.0, "steps": 30, "cfg": 2.0, "last_step": "decoder"}


def examples() -> list[Example]:
    """Latents that lie close to one of two points, told apart by their captions."""
    g = torch.Generator().manual_seed(0)
    centres, captions = torch.randn(2, 16, 1, 1, 1, generator=g), torch.randn(2, 3, 384, generator=g)
    return [
        Example(
            latents=(centres[i % 2] + 0.2 * torch.randn(16, 3, 2, 2, generator=g)).bfloat16(),
            captions=(captions[i % 2].bfloat16(),),
            fps=24.0,
        )
        for i in range(24)
    ]


def teacher() -> VideoTransformer:
    """A transformer with a velocity that depends on tokens, t and caption."""
    g = torch.Generator().manual_seed(1)
    model = VideoTransformer(transformer_preset("tiny"))
    init_weights(model, g)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("proj_out.weight", "attn2.to_out.0.weight", "adaln_single.linear.weight")):
                parameter.normal_(std=0.3, generator=g)
    return model.eval().requires_grad_(False)


def task(model: LTXModel, config: DistillConfig = CONFIG, flow: FlowConfig = FLOW) -> DistillTask:
    teaching = teacher()
    student = VideoTransformer(teaching.config)
    student.load_state_dict(teaching.state_dict())
    model = replace(model, transformer=student, schedule=inference_schedule(flow), sampling=SAMPLING)
    return DistillTask(model=model, teacher=teaching, examples=examples(), flow=flow, config=config, optim=OPTIM)


def settings(out: Path, steps: int, **changes: object) -> RunConfig:
    base = RunConfig(steps=steps, out=out, autocast="none", tensorboard=False, progress=False, ema_decay=0.8)
    return replace(base, **changes)  # type: ignore[arg-type]  # fields by name, for brevity


def test_the_students_times_are_every_mth_of_the_teachers() -> None:
    path, times = CONFIG.path(FLOW), CONFIG.times(FLOW)
    assert len(path) == 10
    assert (path[0], path[-1]) == (1.0, 0.05)
    assert times == tuple(path[0:9:3])
    assert all(round(t, 4) == t for t in path)
    with pytest.raises(RunError, match="Take fewer"):
        replace(CONFIG, steps=40).path(FLOW)


def test_the_target_leads_in_one_step_to_where_the_teacher_arrives(tiny_model: LTXModel) -> None:
    made = task(tiny_model)
    batch = made.batch(0, 0)
    start = made._start(batch, torch.Generator().manual_seed(0))
    state = TokenState(start.tokens, start.tokens, 1 - start.times, start.positions, start.tokens.shape[1])
    arrived = made._teacher_path(batch, start, state, 0, 3)
    assert (arrived.tokens - state.tokens)[start.counted].abs().mean() > 0.05
    assert arrived.tokens[~start.counted].equal(state.tokens[~start.counted])  # what is given stays
    by_hand = state
    for t, t_next in zip(made.path[:3], made.path[1:4], strict=True):
        positive, null = (
            made.teacher(by_hand.tokens, by_hand.effective_t(t), start.positions, text, mask)
            for text, mask in (
                (batch.text, batch.text_mask),
                (made.clips.null.float().expand(len(batch.text), -1, -1), torch.ones(len(batch.text), 2).bool()),
            )
        )
        moved = by_hand.tokens - (t - t_next) * (null + 2.0 * (positive - null))
        by_hand = replace(by_hand, tokens=torch.where(start.counted[..., None], moved, by_hand.tokens))
    torch.testing.assert_close(arrived.tokens, by_hand.tokens, rtol=1e-4, atol=1e-5)


def test_the_student_learns_to_end_where_the_teacher_does(tiny_model: LTXModel, tmp_path: Path) -> None:
    made = task(tiny_model)
    before = made.sample_error()
    run(made, settings(tmp_path / "whole", 50))
    after = [json.loads(line) for line in (tmp_path / "whole" / "evaluations.jsonl").read_text().splitlines()]
    assert after[-1]["ema/sample_error"] < 0.35 * before
    curve = losses(tmp_path / "whole")
    assert sum(curve[-10:]) < 0.6 * sum(curve[:10])


def test_a_distillation_resumes_exactly(tiny_model: LTXModel, tmp_path: Path) -> None:
    run(task(tiny_model), settings(tmp_path / "whole", 6))
    broken = task(tiny_model)
    original = broken.clips.batch
    broken.clips.batch = lambda step, micro: original(step, micro) if step < 4 else _interrupt()
    with pytest.raises(KeyboardInterrupt):
        run(broken, settings(tmp_path / "parts", 6, checkpoint_every=2, prefetch=False))
    run(task(tiny_model), settings(tmp_path / "parts", 6))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def losses(out: Path) -> list[float]:
    return [json.loads(line)["distill/loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_under_autocast_all_weights_learn(tiny_model: LTXModel) -> None:
    made = task(tiny_model)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = made.loss(made.batch(0, 0), 0, torch.Generator().manual_seed(0))
    loss.backward()
    without = [name for name, p in made.module.named_parameters() if p.grad is None or not p.grad.any()]
    assert without in ([], ["transformer_blocks.0.scale_shift_table"])
    assert all(parameter.grad is None for parameter in made.teacher.parameters())


def test_a_distilled_run_becomes_a_file_that_knows_its_times(tiny_model: LTXModel, tmp_path: Path) -> None:
    made = task(tiny_model)
    run(made, settings(tmp_path / "run", 1))
    times, path = distilled_times(tmp_path / "run"), tmp_path / "fast.safetensors"
    assert times == CONFIG.times(FLOW)
    export(
        path,
        trained_transformer(tmp_path / "run"),
        tiny_model.vae,
        schedule=inference_schedule(FLOW),
        sampling=SAMPLING,
        text_encoder="all-MiniLM-L6-v2",
        world="playroom",
        allowed_times=times,
    )
    fast = openltx.load(path, device="cpu")
    assert fast.allowed_times == times
    video = openltx.generate(fast, prompt="a red ball", seed=1)
    assert (video.request.steps, video.request.cfg) == (3, 1.0)
    assert video.request.times == times
    with pytest.raises(RequestError, match="distilled for the times"):
        openltx.generate(fast, prompt="a red ball", steps=7)
