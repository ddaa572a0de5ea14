"""Experiments on the transformer's training: what ``arms`` needs to know of them, and a picture.

OUT/curves.png   the training losses of all arms
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openltx.conditioning import initial_state
from openltx.data.latents import Example
from openltx.data.manifest import Clip
from openltx.data.precompute import unfold
from openltx.errors import DivergedError
from openltx.eval.comparison import Networks
from openltx.eval.flow import HeldOutLoss, attention_entropy, held_out_loss
from openltx.eval.frechet import compare_features, frame_features
from openltx.eval.playroom import share, text_trials
from openltx.eval.probe import Probe
from openltx.flow.guidance import guidance_curve
from openltx.flow.solvers import euler
from openltx.geometry import VideoShape, unpatchify
from openltx.media.transforms import to_frames, to_tensor
from openltx.models.text import TextEncoder
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.noise import derived_generator
from openltx.pipelines.velocity import Prompts, guided_velocity
from openltx.recipes.arms import arm_folder, run_arms
from openltx.recipes.flow import FlowRecipe, flow_task
from openltx.recipes.flow_ablations import FlowArm, FlowExperiment
from openltx.training import loop
from openltx.training.curves import plot_curves
from openltx.training.export import trained_transformer
from openltx.training.metrics import read_json_lines

COLUMNS = {
    "held-out loss": "held_out",
    "with first frame": "held_out_first_frame",
    "unseen sizes": "unseen",
    "attention entropy": "attention_entropy",
    "largest gradient": "largest_gradient",
    "tokens/s": "tokens_per_second",
    "colour": "colour",
    "motion": "motion",
    "shape": "shape",
    "all right": "all_correct",
    "Frechet MobileNetV2": "frechet",
}
ENTROPY_EXAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Source:
    """One VAE and what it made of the clips; ``patch`` is how far its latents were folded."""

    vae: VideoAutoencoder
    latents: Sequence[Example]
    held_out: Sequence[Example]
    patch: int = 1


@dataclass(frozen=True, kw_only=True)
class FlowConditions:
    """What all arms have in common."""

    sources: Sequence[Source]
    text: TextEncoder
    unseen: Sequence[Example] = ()  # of the first source
    base: VideoTransformer | None = None  # for arms that do not train
    folder: Path | None = None  # of the held-out ``clips`` whose captions are generated from, and judged
    clips: Sequence[Clip] = ()
    probe: Probe | None = None
    networks: Networks = dataclasses.field(default_factory=Networks)
    steps: int | None = None  # instead of the recipes' own
    threads: int | None = None


def run_flow_experiment(
    experiment: FlowExperiment,
    out: Path,
    seeds: Sequence[int],
    conditions: FlowConditions,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any] | None:
    """Train and measure every arm with every seed; the report, or None if a run was stopped before its end."""

    def result(arm: FlowArm, seed: int, folder: Path) -> dict[str, Any] | None:
        return _result(arm, seed, folder, conditions)

    found = run_arms(experiment.arms, out, seeds, result, COLUMNS, say)
    if found is None:
        return None
    _draw_curves(experiment, out, seeds)
    return {"question": experiment.question, "paper": experiment.paper, **found}


def _result(arm: FlowArm, seed: int, folder: Path, conditions: FlowConditions) -> dict[str, Any] | None:
    """The numbers of one run; None if it was stopped."""
    source = conditions.sources[arm.source]
    training: dict[str, Any] = {}
    if arm.trains:
        try:
            if not _train(arm, source, seed, folder, conditions):
                return None
        except DivergedError as error:
            return {"diverged": str(error)}
        transformer = trained_transformer(folder)
        training = _training_numbers(folder, arm.recipe)
    else:
        assert conditions.base is not None
        transformer = conditions.base.eval()
        folder.mkdir(parents=True, exist_ok=True)
    numbers = {**training, "parameters": sum(p.numel() for p in transformer.parameters())}
    if arm.trains:
        numbers |= _losses(transformer, source, conditions if arm.source == 0 else None)
    if conditions.clips:
        numbers |= _judged(arm, transformer, source, seed, conditions)
    return numbers


def _train(arm: FlowArm, source: Source, seed: int, folder: Path, conditions: FlowConditions) -> bool:
    """Whether the run came to its end."""
    task = flow_task(arm.recipe, source.latents, source.vae, conditions.text, seed=seed)
    task.sample_prompts = ()
    config = arm.recipe.run(folder, seed)
    steps = conditions.steps or config.steps
    return loop.run(task, dataclasses.replace(config, steps=steps, threads=conditions.threads)).reason == "finished"


def _training_numbers(folder: Path, recipe: FlowRecipe) -> dict[str, float]:
    lines = read_json_lines(folder / "metrics.jsonl")
    later = lines[len(lines) // 2 :]
    return {
        "tokens_per_second": median(x["flow/tokens"] * recipe.accumulate / x["step_seconds"] for x in later),
        "largest_gradient": max(line["flow/grad_norm"] for line in later),
        "train_loss": mean(line["flow/loss"] for line in later),
        "steps": lines[-1]["step"],
    }


def _losses(transformer: VideoTransformer, source: Source, conditions: FlowConditions | None) -> dict[str, Any]:
    """Of held-out latents; of unseen sizes too, where they are of this source."""

    def told(loss: HeldOutLoss, name: str) -> dict[str, Any]:
        return {name: loss.mean, f"{name}_details": asdict(loss)}

    numbers = told(held_out_loss(transformer, source.held_out), "held_out")
    numbers |= told(held_out_loss(transformer, source.held_out, first_frame=True), "held_out_first_frame")
    if conditions is not None and conditions.unseen:
        numbers |= told(held_out_loss(transformer, conditions.unseen), "unseen")
    if transformer.config.text_attention == "cross":
        some = source.held_out[:ENTROPY_EXAMPLES]
        numbers["attention_entropy"] = mean(attention_entropy(transformer, example) for example in some)
    return numbers


def _judged(
    arm: FlowArm, transformer: VideoTransformer, source: Source, seed: int, conditions: FlowConditions
) -> dict[str, Any]:
    """What the judges say of videos made from held-out captions, and their frames' distance to the real ones."""
    assert conditions.folder is not None
    assert conditions.probe is not None

    def make(clip: Clip, index: int, _picture: Path | None) -> UInt8[np.ndarray, "F H W 3"]:
        return sample(arm, transformer, source, conditions.text, clip, seed * 1_000_003 + index)

    trials = list(text_trials(make, conditions.probe, conditions.folder, conditions.clips))
    numbers: dict[str, Any] = {
        name: share(getattr(trial.verdict, name) for trial in trials)
        for name in ("colour", "motion", "shape", "all_correct")
    }
    network = conditions.networks.mobilenet
    if network is not None:
        features = [
            np.concatenate([frame_features(network, to_tensor(frames)) for frames in videos])
            for videos in ([t.real for t in trials], [t.generated for t in trials])
        ]
        count = min(map(len, features))
        found = compare_features(features[0][:count], features[1][:count])
        numbers["frechet"] = None if found is None else found.distance
    return numbers


@torch.inference_mode()
def sample(
    arm: FlowArm, transformer: VideoTransformer, source: Source, text: TextEncoder, clip: Clip, seed: int
) -> UInt8[np.ndarray, "F H W 3"]:
    """A video of a clip's size and caption, from whatever latents the arm's transformer knows."""
    settings = {**arm.recipe.sampling, **arm.sampling}
    config = transformer.config
    length = (clip.frames - 1) // 8 * 8 + 1
    grid = VideoShape(frames=length, height=clip.height, width=clip.width, fps=clip.fps).latent()
    generator = derived_generator(seed, "flow experiment")
    noise = torch.randn(1, grid.num_tokens, config.in_channels, generator=generator)
    state = initial_state(noise, grid, clip.fps, [], config.causal_positions)
    contexts = [
        transformer.prepare(state.positions, context.embeddings.float(), context.mask)
        for context in (text.encode([clip.caption]), text.encode([""]))
    ]
    curve = guidance_curve(cfg=settings["cfg"], rescale=settings["rescale"])
    velocity = guided_velocity(transformer, Prompts(*contexts), state, curve, "attention_values")
    times = arm.recipe.schedule.times(settings["steps"], grid.num_tokens)
    by_decoder = settings["last_step"] == "decoder" and source.vae.config.timestep_conditioning
    level = settings["decode_timestep"] if source.vae.config.timestep_conditioning else None
    for step in euler(velocity, state, times, stop_at=level if by_decoder else None):
        state = step.state
    latents = unfold(unpatchify(state.tokens, grid), source.patch)
    fresh = 0.0 if by_decoder or level is None else settings["decode_noise_scale"]
    return to_frames(_decoded(source.vae, latents, level, fresh, generator))


def _decoded(
    vae: VideoAutoencoder, latents: Tensor, t: float | None, noise_scale: float, generator: torch.Generator
) -> Float[Tensor, "3 F H W"]:
    return vae.decode(latents, t, noise_scale, generator=generator)[0].float()


def _draw_curves(experiment: FlowExperiment, out: Path, seeds: Sequence[int]) -> None:
    """One panel an arm, of its first seed."""
    merged: dict[int, dict[str, float]] = {}
    for arm in experiment.arms:
        path = arm_folder(out, arm, seeds[0]) / "metrics.jsonl"
        for line in read_json_lines(path) if path.exists() else ():
            merged.setdefault(line["step"], {"step": line["step"]})[f"{arm.name}/loss"] = line["flow/loss"]
    if merged:
        plot_curves([merged[step] for step in sorted(merged)], out / "curves.png")
