"""Training the transformer: rectified flow over many sizes and lengths, from text and from images. (Paper 2.4, 2.5.)

    t ~ logit-normal, shifted by the token count, tails clamped
    x_t = (1 - t) x_0 + t eps, per token
    loss = || v_theta(x_t, t, caption) - (eps - x_0) ||^2      over the tokens that are not conditioned

Clips of all sizes with about as many tokens share a batch, and random tokens of the larger ones are dropped, so that
all samples have the same number (``data.buckets``). Single frames are clips too. Some clips have something given: their
first frame, an opening, pictures on the way (``training.conditions``). With some probability the caption is replaced by
the empty one, which classifier-free guidance needs.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openltx.conditioning import training_state
from openltx.data.buckets import BatchPlan, Pick
from openltx.data.latents import Example, entries_of, padded
from openltx.errors import RunError
from openltx.flow.path import velocity
from openltx.flow.schedule import Schedule, Tails, sample_logit_normal, shift_for_tokens
from openltx.geometry import LatentShape, patchify
from openltx.media.contact_sheet import contact_sheet
from openltx.models.bundle import LTXModel
from openltx.models.transformer import VideoTransformer
from openltx.pipelines.generate import generate
from openltx.training.conditions import ConditionMix, Front, drawn_front, front_items, front_of, in_place_items
from openltx.training.config import OptimConfig
from openltx.training.loop import Phase
from openltx.training.optim import ExponentialAverage

T_BINS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What the paper leaves open, and our choices for a small model.

    tokens_per_batch   of a micro-batch, about
    mixing             how sizes of about as many tokens share a batch: the larger ones "drop" random tokens, or the
                       smaller ones are "pad"ded; with "none" only sizes of the same count do
    largest_drop       share of a clip's tokens
    image_share        of all tokens, those of single frames (needs latents with stills)
    shift_low, _high   (tokens, mu) anchors of the logit-normal's shift
    """

    tokens_per_batch: int = 4096
    mixing: Literal["drop", "pad", "none"] = "drop"
    largest_drop: float = 0.2
    image_share: float = 0.0
    caption_dropout: float = 0.1
    conditions: ConditionMix = field(default_factory=ConditionMix)
    shift_low: tuple[int, float] = (64, 0.6)
    shift_high: tuple[int, float] = (112, 0.9)
    std: float = 1.0
    tails: Tails = "flat"
    seed: int = 0


class Clips(NamedTuple):
    """Clips of one size in a batch, with what is given in front of them."""

    latents: Float[Tensor, "b c f h w"]
    fps: float
    front: Front | None

    @property
    def shape(self) -> LatentShape:
        f, h, w = self.latents.shape[2:]
        return LatentShape(frames=f, height=h, width=w)

    @property
    def num_front(self) -> int:
        """Tokens in front: of a clip that is given inside, those of its first two latent frames."""
        if self.front is None:
            return 0
        return min(2, self.front.latents.shape[2]) * self.shape.height * self.shape.width


class FlowBatch(NamedTuple):
    """Clips of one or more sizes, ready for a step; captions in the order of all clips."""

    groups: tuple[Clips, ...]
    text: Float[Tensor, "b l e"]
    text_mask: Bool[Tensor, "b l"]


class Noised(NamedTuple):
    """All samples of a batch on their path, with the same number of tokens."""

    tokens: Float[Tensor, "b n c"]
    times: Float[Tensor, "b n"]
    positions: Float[Tensor, "b 3 n"]
    target: Float[Tensor, "b n c"]
    counted: Bool[Tensor, "b n"]
    """Which tokens are in the loss."""
    real: Bool[Tensor, "b n"] | None
    """Which tokens are no padding; None: all."""
    t: Float[Tensor, "b"]
    """Of each sample, that of what is not given."""


class FlowTask:
    """The velocity-matching task for ``training.loop``.

    ``streams`` is the number of micro-batches of a step (``RunConfig.accumulate``). Raises RunError if the examples
    lack what the settings ask for.
    """

    name = "flow"

    def __init__(
        self,
        model: LTXModel,
        examples: Sequence[Example],
        config: FlowConfig,
        optim: OptimConfig,
        sample_prompts: Sequence[str],
        streams: int = 1,
    ) -> None:
        assert model.text is not None
        self.model = model
        self.examples = examples
        self.config = config
        self.optim = optim
        self.sample_prompts = sample_prompts
        self.null = model.text.encode([""]).embeddings[0].to(torch.bfloat16)
        entries = entries_of(examples)
        _require_material(config, any(e.stills for e in entries), any(e.has_ending for e in entries))
        self.plan = BatchPlan(
            entries,
            tokens_per_batch=config.tokens_per_batch,
            largest_drop=0.0 if config.mixing == "none" else config.largest_drop,
            image_share=config.image_share,
            streams=streams,
            seed=config.seed,
        )

    @property
    def module(self) -> nn.Module:
        return self.model.transformer

    @property
    def settings(self) -> Mapping[str, object]:
        sizes: dict[str, int] = {}
        for entry in self.plan.entries:
            size = f"{'x'.join(map(str, entry.shape))} at {entry.fps:g}"
            sizes[size] = sizes.get(size, 0) + 1
        return {
            "model": asdict(self.model.transformer.config),
            "flow": asdict(self.config),
            "sizes": dict(sorted(sizes.items())),
            "streams": self.plan.streams,
        }

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
        """Clips or stills of one family of sizes, each with one of its captions or none."""
        rng = np.random.default_rng([self.config.seed, step, micro])
        kind = drawn_front(self.config.conditions, rng)
        found: dict[tuple[torch.Size, float, int], list[tuple[Tensor, Tensor, Tensor | None]]] = {}
        for pick in self.plan.batch(step, micro):
            example = self.examples[pick.example]
            latents, caption = self._clip(example, pick, rng)
            front = None if pick.still is not None else front_of(kind, example, rng)
            frame, given = (0, None) if front is None else front  # nothing that is in front begins at frame 0
            found.setdefault((latents.shape, example.fps, frame), []).append((latents, caption, given))
        groups, captions = [], []
        for (_, fps, frame), members in found.items():
            fronts = [given for *_, given in members if given is not None]
            front = Front(torch.stack(fronts).float(), frame) if fronts else None
            groups.append(Clips(torch.stack([latents for latents, *_ in members]).float(), fps, front))
            captions += [caption for _, caption, _ in members]
        return FlowBatch(tuple(groups), *padded(captions))

    def _clip(self, example: Example, pick: Pick, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        latents, captions = example.latents, example.captions
        if pick.still is not None:
            assert example.stills is not None
            latents, captions = example.stills[pick.still], example.still_captions or captions
        if rng.random() < self.config.caption_dropout:
            return latents, self.null
        return latents, captions[rng.integers(len(captions))]

    def loss(self, batch: FlowBatch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002 (the loop's signature)
        """Mean squared error of the velocity, and loss and number of samples of each bin of t."""
        noised = noise_batch(batch.groups, self.config, generator, self.model.transformer.config.causal_positions)
        predicted = self.model.transformer(
            noised.tokens, noised.times, noised.positions, batch.text, batch.text_mask, token_mask=noised.real
        )
        error = (predicted.float() - noised.target).square().mean(-1) * noised.counted
        per_sample = error.sum(1) / noised.counted.sum(1).clamp(min=1)
        logs = by_time(per_sample.detach(), noised.t)
        logs["tokens"] = torch.tensor(float(noised.tokens.shape[:2].numel()))
        return per_sample.mean(), logs

    @torch.no_grad()
    def write_samples(self, folder: Path, step: int, ema: bool) -> dict[str, float]:
        """Videos of the sample prompts, as one contact sheet."""
        rows = []
        for seed, prompt in enumerate(self.sample_prompts):
            rows.append((prompt, generate(self.model, prompt=prompt, seed=seed).frames))
        if rows:
            contact_sheet(rows, columns=8, cell=96).save(folder / f"step_{step:08d}{'_ema' if ema else ''}.png")
        return {}


def noise_batch(
    groups: Sequence[Clips],
    config: FlowConfig,
    generator: torch.Generator,
    causal: bool,
    time: Callable[[int, float], Tensor] | None = None,
) -> Noised:
    """All groups at random times, with what is given written in, and brought to one number of tokens.

    ``time(count, mu)`` draws the times instead of the configured distribution.
    """
    enough = min if config.mixing == "drop" else max
    total = enough(clips.shape.num_tokens + clips.num_front for clips in groups)
    parts = [_noised(clips, config, generator, causal, time, total) for clips in groups]
    if len(parts) == 1:
        return parts[0]
    joined = [torch.cat([getattr(part, name) for part in parts]) for name in Noised._fields if name != "real"]
    *rest, t = joined
    real = [torch.ones_like(p.counted) if p.real is None else p.real for p in parts]
    return Noised(*rest, real=torch.cat(real) if any(p.real is not None for p in parts) else None, t=t)


def by_time(losses: Float[Tensor, "b"], t: Float[Tensor, "b"]) -> dict[str, Tensor]:
    """Mean loss and number of samples in each of ``T_BINS``."""
    logs: dict[str, Tensor] = {}
    for low, high in itertools.pairwise(T_BINS):
        inside = (t >= low) & ((t < high) | (high == 1))
        logs[f"count_t{low:.2f}"] = inside.sum().float()
        if inside.any():
            logs[f"loss_t{low:.2f}"] = losses[inside].mean()
    return logs


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


def _noised(
    clips: Clips,
    config: FlowConfig,
    generator: torch.Generator,
    causal: bool,
    time: Callable[[int, float], Tensor] | None,
    total: int,
) -> Noised:
    """One group, with ``total`` tokens a sample."""
    clean, shape = patchify(clips.latents), clips.shape
    mu = shift_for_tokens(shape.num_tokens, config.shift_low, config.shift_high)
    if time is None:
        t = sample_logit_normal(len(clean), mu, config.std, generator, config.tails)
    else:
        t = time(len(clean), mu)
    noise = torch.randn(clean.shape, generator=generator)
    items = in_place_items(clips.latents, shape, config.conditions, generator)
    items += front_items(clips.front, config.conditions, generator)
    state, times, counted = training_state(
        clean,
        noise,
        t,
        shape,
        clips.fps,
        items,
        causal,
        draw=lambda size: torch.randn(tuple(size), generator=generator),
    )
    target = torch.zeros_like(state.tokens)
    target[:, -shape.num_tokens :] = velocity(clean, noise)
    whole = Noised(state.tokens, times, state.positions, target, counted, None, t)
    surplus = state.tokens.shape[1] - total
    if surplus > 0:
        return _dropped(whole, surplus, shape.num_tokens, generator)
    return whole if surplus == 0 else _padded(whole, -surplus)


def _dropped(noised: Noised, surplus: int, num_targets: int, generator: torch.Generator) -> Noised:
    """Without ``surplus`` random tokens of each video; those in front of it all stay."""
    b, n = noised.times.shape
    order = torch.rand(b, num_targets, generator=generator).argsort(1)[:, surplus:].sort(1).values + n - num_targets
    front = torch.arange(n - num_targets).expand(b, -1)
    kept = torch.cat([front, order], 1)  # b m

    def pick(x: Tensor) -> Tensor:
        return x.gather(1, kept if x.ndim == 2 else kept[..., None].expand(-1, -1, x.shape[2]))

    positions = noised.positions.gather(2, kept[:, None].expand(-1, 3, -1))
    tokens, times, target, counted = map(pick, (noised.tokens, noised.times, noised.target, noised.counted))
    return Noised(tokens, times, positions, target, counted, None, noised.t)


def _padded(noised: Noised, missing: int) -> Noised:
    """With ``missing`` tokens of zeros at the end, which no other token sees."""
    pad = torch.nn.functional.pad
    tokens, target = (pad(x, (0, 0, 0, missing)) for x in (noised.tokens, noised.target))
    times, positions, counted = (pad(x, (0, missing)) for x in (noised.times, noised.positions, noised.counted))
    real = pad(torch.ones_like(noised.counted), (0, missing))
    return Noised(tokens, times, positions, target, counted, real, noised.t)


def _require_material(config: FlowConfig, stills: bool, ending: bool) -> None:
    needs = {
        "image_share": (config.image_share, stills, "--stills"),
        "keyframes": (config.conditions.keyframes, stills, "--stills"),
        "ending": (config.conditions.ending, ending, "--ending"),
    }
    for name, (share, there, flag) in needs.items():
        if share and not there:
            raise RunError(
                f"The recipe asks for {name} ({share:g}), but the latents were made without what that needs. Make them "
                f"again with {flag} (openltx data precompute), or set {name} to 0."
            )
    if not 0 <= config.image_share < 1 or not 0 <= config.largest_drop < 1:
        raise RunError(
            f"image_share={config.image_share} and largest_drop={config.largest_drop}: both must be from 0 to below 1."
        )
