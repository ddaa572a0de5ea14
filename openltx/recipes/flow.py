"""A named training run of the transformer: what it trains, on batches of which kind, and how it samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from openltx.data.latents import Example
from openltx.data.precompute import Precompute
from openltx.errors import RunError
from openltx.flow.schedule import Schedule
from openltx.models.bundle import LTXModel
from openltx.models.text import TextEncoder
from openltx.models.transformer import TransformerConfig, VideoTransformer, init_weights
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.distill import DistillConfig, DistillTask
from openltx.training.flow import FlowConfig, FlowTask, inference_schedule


@dataclass(frozen=True, kw_only=True)
class FlowRecipe:
    """All of a run but its data.

    ``latents`` is what must be computed of each clip; ``sampling`` what the finished file asks to be sampled with.
    """

    transformer: TransformerConfig
    flow: FlowConfig
    optim: OptimConfig
    steps: int
    sampling: Mapping[str, Any]
    sample_prompts: Sequence[str] = ()
    latents: Precompute = field(default_factory=Precompute)
    distill: DistillConfig = field(default_factory=DistillConfig)
    distill_optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4, warmup=50))
    distill_steps: int = 1000
    accumulate: int = 1
    ema_decay: float = 0.999
    posthoc_every: int | None = None
    sample_every: int | None = 500

    def run(self, out: Path, seed: int = 0) -> RunConfig:
        """The loop's settings."""
        return RunConfig(
            steps=self.steps,
            out=out,
            seed=seed,
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
            posthoc_every=self.posthoc_every,
            sample_every=self.sample_every,
            log_every=10,
        )

    def distillation_run(self, out: Path, seed: int = 0) -> RunConfig:
        """The loop's settings of a distillation."""
        return replace(self.run(out, seed), steps=self.distill_steps, posthoc_every=None, ema_decay=0.99)

    @property
    def schedule(self) -> Schedule:
        """How times are chosen in sampling: with the shift of the training."""
        return inference_schedule(self.flow)


def flow_task(
    recipe: FlowRecipe,
    examples: Sequence[Example],
    vae: VideoAutoencoder,
    text: TextEncoder,
    *,
    seed: int = 0,
    base: VideoTransformer | None = None,
) -> FlowTask:
    """The training task of a recipe; from nothing, or from ``base``. RunError if that does not fit the recipe."""
    model = _bundle(recipe, starting_point(recipe.transformer, base, seed), vae, text)
    config = replace(recipe.flow, seed=recipe.flow.seed + seed)
    return FlowTask(model, examples, config, recipe.optim, recipe.sample_prompts, recipe.accumulate)


def distill_task(
    recipe: FlowRecipe,
    examples: Sequence[Example],
    vae: VideoAutoencoder,
    text: TextEncoder,
    *,
    base: VideoTransformer,
    seed: int = 0,
) -> DistillTask:
    """The distillation of ``base``; RunError if that does not fit the recipe."""
    teacher = starting_point(recipe.transformer, base, seed).eval().requires_grad_(False)
    student = VideoTransformer(teacher.config)
    student.load_state_dict(teacher.state_dict())
    config = replace(recipe.flow, seed=recipe.flow.seed + seed, caption_dropout=0.0)
    return DistillTask(
        model=_bundle(recipe, student, vae, text),
        teacher=teacher,
        examples=examples,
        flow=config,
        config=recipe.distill,
        optim=recipe.distill_optim,
        sample_prompts=recipe.sample_prompts,
        streams=recipe.accumulate,
    )


def starting_point(config: TransformerConfig, base: VideoTransformer | None, seed: int) -> VideoTransformer:
    """The transformer at step 0, in float32: drawn from the seed, or ``base``; RunError if that does not fit."""
    if base is None:
        transformer = VideoTransformer(config)
        init_weights(transformer, torch.Generator().manual_seed(seed))
        return transformer
    if base.config != config:
        raise RunError(f"The base's transformer is not of the recipe's architecture: {base.config}.")
    return base.float().train()


def _bundle(recipe: FlowRecipe, transformer: VideoTransformer, vae: VideoAutoencoder, text: TextEncoder) -> LTXModel:
    return LTXModel(
        name="training",
        transformer=transformer,
        vae=vae,
        text=text,
        schedule=recipe.schedule,
        sampling=dict(recipe.sampling),
    )
