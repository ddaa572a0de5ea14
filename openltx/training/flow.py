"""Training the transformer: rectified flow, text-to-video and image-to-video at once. (Paper sections 2.4 and 2.5.)

    t ~ logit-normal, shifted by the token count, tails clamped
    x_t = (1 - t) x_0 + t eps, per token
    loss = || v_theta(x_t, t, caption) - (eps - x_0) ||^2      over the tokens that are not conditioned

With some probability the first frame's tokens are a condition: nearly clean, with a small random noise level, out of
the loss. With some probability the caption is replaced by the empty one, which classifier-free guidance needs. Each
batch has clips of one length, and about the same number of tokens whatever the length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openltx.conditioning import training_state
from openltx.data.precompute import Example
from openltx.flow.path import velocity
from openltx.flow.schedule import Schedule, sample_logit_normal, shift_for_tokens
from openltx.geometry import LatentShape, patchify
from openltx.media.contact_sheet import contact_sheet
from openltx.models.bundle import LTXModel
from openltx.models.transformer import VideoTransformer
from openltx.pipelines.generate import generate
from openltx.training.config import OptimConfig
from openltx.training.loop import Phase
from openltx.training.optim import ExponentialAverage


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What the paper leaves open, and our choices for a small model."""

    tokens_per_batch: int = 4096
    caption_dropout: float = 0.1
    first_frame_probability: float = 0.3
    first_frame_max_t: float = 0.05  # noise level of a conditioned frame: uniform in [0, this]
    shift_low: tuple[int, float] = (64, 0.6)  # (tokens, mu) anchors of the logit-normal's shift
    shift_high: tuple[int, float] = (112, 0.9)
    std: float = 1.0
    seed: int = 0


class FlowBatch(NamedTuple):
    """Clips of one size, ready for a step."""

    clean: Float[Tensor, "b n c"]
    text: Float[Tensor, "b l e"]
    text_mask: Bool[Tensor, "b l"]
    shape: LatentShape
    fps: float


class FlowTask:
    """The velocity-matching task for ``training.loop``."""

    name = "flow"

    def __init__(
        self,
        model: LTXModel,
        examples: Sequence[Example],
        config: FlowConfig,
        optim: OptimConfig,
        sample_prompts: Sequence[str],
    ) -> None:
        assert model.text is not None
        self.model = model
        self.config = config
        self.optim = optim
        self.sample_prompts = sample_prompts
        self.null = model.text.encode([""]).embeddings[0].to(torch.bfloat16)
        self.buckets: dict[tuple[tuple[int, ...], float], list[Example]] = {}
        for example in examples:
            self.buckets.setdefault((tuple(example.latents.shape), example.fps), []).append(example)
        self.keys = sorted(self.buckets)
        self.weights = np.array([len(self.buckets[key]) for key in self.keys], dtype=float)

    @property
    def module(self) -> nn.Module:
        return self.model.transformer

    @property
    def settings(self) -> Mapping[str, object]:
        buckets = {str(key): len(self.buckets[key]) for key in self.keys}
        return {"model": asdict(self.model.transformer.config), "flow": asdict(self.config), "buckets": buckets}

    @property
    def phases(self) -> list[Phase]:
        return [
            Phase(
                name="flow",
                parameters=list(self.module.parameters()),
                muon_parameters=block_matrices(self.model.transformer),
                optim=self.optim,
                loss=self.loss,
            )
        ]

    def on_step(self, step: int, average: ExponentialAverage) -> None:
        """Nothing changes between steps."""

    def after_step(self, step: int) -> None:
        """Nothing to keep."""

    def batch(self, step: int, micro: int) -> FlowBatch:
        """Clips of one random size, each with one of its captions or none."""
        rng = np.random.default_rng([self.config.seed, step, micro])
        shape, fps = self.keys[rng.choice(len(self.keys), p=self.weights / self.weights.sum())]
        bucket = self.buckets[shape, fps]
        grid = LatentShape(frames=shape[1], height=shape[2], width=shape[3])
        count = max(1, self.config.tokens_per_batch // grid.num_tokens)
        chosen = [bucket[i] for i in rng.choice(len(bucket), count, replace=len(bucket) < count)]
        captions = [self._caption(example, rng) for example in chosen]
        text = torch.nn.utils.rnn.pad_sequence(captions, batch_first=True).float()
        lengths = torch.tensor([len(caption) for caption in captions])
        mask = torch.arange(text.shape[1]) < lengths[:, None]
        clean = patchify(torch.stack([example.latents for example in chosen]).float())
        return FlowBatch(clean, text, mask, grid, fps)

    def _caption(self, example: Example, rng: np.random.Generator) -> Tensor:
        if rng.random() < self.config.caption_dropout:
            return self.null
        return example.captions[rng.integers(len(example.captions))]

    def loss(self, batch: FlowBatch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002 (the loop's signature)
        """Mean squared error of the velocity, and the same for the low, middle and high third of t."""
        config, clean = self.config, batch.clean
        mu = shift_for_tokens(batch.shape.num_tokens, config.shift_low, config.shift_high)
        t = sample_logit_normal(len(clean), mu, config.std, generator)
        noise = torch.randn(clean.shape, generator=generator)
        level = torch.rand(len(clean), generator=generator) * config.first_frame_max_t
        given = torch.rand(len(clean), generator=generator) < config.first_frame_probability
        causal = self.model.transformer.config.causal_positions
        state, times, counted = training_state(clean, noise, t, batch.shape, batch.fps, (1 - level) * given, causal)
        predicted = self.model.transformer(state.tokens, times, state.positions, batch.text, batch.text_mask)
        error = (predicted.float() - velocity(clean, noise)).square().mean(-1) * counted
        per_sample = error.sum(1) / counted.sum(1)
        logs = {f"t{low:.2f}": per_sample.detach()[inside].mean() for low, inside in _thirds(t) if inside.any()}
        return per_sample.mean(), logs

    @torch.no_grad()
    def write_samples(self, folder: Path, step: int, ema: bool) -> dict[str, float]:
        """Videos of the sample prompts, as one contact sheet."""
        rows = []
        for seed, prompt in enumerate(self.sample_prompts):
            rows.append((prompt, generate(self.model, prompt=prompt, seed=seed).frames))
        contact_sheet(rows, columns=8, cell=96).save(folder / f"step_{step:08d}{'_ema' if ema else ''}.png")
        return {}


def block_matrices(model: VideoTransformer) -> list[nn.Parameter]:
    """The weight matrices that Muon trains: those inside the blocks."""
    return [
        p
        for name, p in model.named_parameters()
        if p.ndim == 2 and name.startswith("transformer_blocks") and "table" not in name
    ]


def inference_schedule(config: FlowConfig, terminal: float | None = None) -> Schedule:
    """The inference schedule with the same shift as in training."""
    return Schedule(
        kind="uniform", shift="tokens", shift_low=config.shift_low, shift_high=config.shift_high, terminal=terminal
    )


def _thirds(t: Tensor) -> list[tuple[float, Tensor]]:
    return [(low, (t >= low) & (t < high)) for low, high in ((0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.01))]
