"""Distillation: a few steps without guidance that go where many guided steps of a teacher go.

The student's K times t_0 = 1 > ... > t_{K-1} are every M-th of the teacher's. From x at t_k the teacher takes M Euler
steps with classifier-free guidance to t_{k+1}, and the student learns the mean velocity of that piece of its path:

    x' = teacher's x at t_{k+1}           v* = (x - x') / (t_k - t_{k+1})           loss = || v_theta(x, t_k) - v* ||^2

So one of its steps without guidance lands where 2 M passes of the teacher do. The student is only ever asked at its K
times, at which the target is a function of x: nothing has to be averaged, and a regression suffices. x is where the
student itself arrives from noise, or, for a share of the batches, a noised clip. (Progressive and guided distillation,
Salimans & Ho 2022 and Meng et al. 2023, by pieces of the path as in PeRFlow, Yan et al. 2024, on the student's own
states.) What is given (a first frame, a keyframe) is given to both.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from openltx.data.latents import Example
from openltx.errors import RunError
from openltx.flow.guidance import guidance_curve
from openltx.flow.path import TokenState
from openltx.flow.schedule import sd3_shift, shift_for_tokens, uniform
from openltx.flow.solvers import euler
from openltx.models.bundle import LTXModel
from openltx.models.transformer import Context, VideoTransformer
from openltx.noise import derived_generator
from openltx.pipelines.velocity import Prompts, guided_velocity
from openltx.training.config import OptimConfig
from openltx.training.flow import FlowBatch, FlowConfig, FlowTask, Noised, noise_batch
from openltx.training.loop import Phase

MEASURED = 8  # samples whose end is compared with the teacher's


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What the student shall do.

    steps       K
    substeps    M, the teacher's steps for each of them
    cfg         the guidance that it takes over
    own_states  share of the batches that start where the student itself arrives, instead of from noised clips
    tokens      the token count whose shift the times have; they are the same for all sizes then
    last        where the last step ends: at the time at which the decoder takes over
    """

    steps: int = 8
    substeps: int = 4
    cfg: float = 3.0
    own_states: float = 0.75
    tokens: int = 112
    last: float = 0.05

    def path(self, flow: FlowConfig) -> list[float]:
        """The teacher's K M times and the end of its last step. Four digits each, as files state the student's."""
        mu = shift_for_tokens(self.tokens, flow.shift_low, flow.shift_high)
        times = sd3_shift(uniform(self.steps * self.substeps), mu).tolist()
        if times[-1] <= self.last:
            raise RunError(
                f"{self.steps} x {self.substeps} steps go down to t = {times[-1]:.4f}, but the last one shall end at "
                f"{self.last:g}. Take fewer of them, or a lower end."
            )
        return [round(t, 4) for t in (*times, self.last)]

    def times(self, flow: FlowConfig) -> tuple[float, ...]:
        """The student's times."""
        return tuple(self.path(flow)[: -1 : self.substeps])


class DistillTask:
    """The distillation task for ``training.loop``; batches and conditions are those of ``FlowTask``.

    ``model`` holds the student. ``flow`` should drop no captions: there is no guidance left to learn for.
    """

    name = "distill"

    def __init__(
        self,
        *,
        model: LTXModel,
        teacher: VideoTransformer,
        examples: Sequence[Example],
        flow: FlowConfig,
        config: DistillConfig,
        optim: OptimConfig,
        sample_prompts: Sequence[str] = (),
        streams: int = 1,
    ) -> None:
        self.config = config
        self.teacher = teacher
        self.path = config.path(flow)
        fast = {"times": config.times(flow), "steps": config.steps, "cfg": 1.0, "rescale": 0.0}
        model = replace(model, sampling={**model.sampling, **fast})
        self.clips = FlowTask(model, examples, flow, optim, sample_prompts, streams)
        self.model = model

    @property
    def module(self) -> nn.Module:
        """The student."""
        return self.model.transformer

    @property
    def settings(self) -> Mapping[str, object]:
        times = list(self.config.times(self.clips.config))
        return {**self.clips.settings, "distill": {**asdict(self.config), "times": times}}

    @property
    def phases(self) -> list[Phase]:
        return [replace(phase, name="distill", loss=self.loss) for phase in self.clips.phases]

    def batch(self, step: int, micro: int) -> FlowBatch:
        """Clips with captions, as in the training of the teacher."""
        return self.clips.batch(step, micro)

    def on_step(self, step: int, average: object) -> None:
        """Nothing changes between steps."""

    def after_step(self, step: int) -> None:
        """Nothing to keep."""

    def loss(self, batch: FlowBatch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002 (the loop's signature)
        """Mean squared error of the mean velocity over one of the student's steps, and the same by step."""
        start = self._start(batch, generator)
        index = int(torch.randint(self.config.steps, (), generator=generator))
        own = bool(torch.rand((), generator=generator) < self.config.own_states)
        first, end = index * self.config.substeps, (index + 1) * self.config.substeps
        t, t_next = self.path[first], self.path[end]
        with torch.no_grad(), _uncached():
            if own:
                state = self._student_path(batch, start, index)
            else:
                moved = start.tokens - (1 - t) * start.target * start.counted[..., None]
                state = replace(_state(start), tokens=moved)
            arrived = self._teacher_path(batch, start, state, first, end)
        # clones, since what was computed in inference mode cannot be in a graph
        x, target = state.tokens.clone(), ((state.tokens - arrived.tokens) / (t - t_next)).clone()
        predicted = self.model.transformer(
            x, state.effective_t(t), start.positions, batch.text, batch.text_mask, token_mask=start.real
        )
        error = (predicted.float() - target).square().mean(-1) * start.counted
        loss = (error.sum(1) / start.counted.sum(1).clamp(min=1)).mean()
        return loss, {f"loss_step{index}": loss.detach()}

    @torch.no_grad()
    def sample_error(self) -> float:
        """How far the student's finished latents are from the teacher's of the same noise, captions and conditions.

        Mean squared error over the mean square of the teacher's latents, on the first clips of the first batch.
        """
        batch = self.clips.batch(0, 0)
        group = batch.groups[0]
        group = group._replace(latents=group.latents[:MEASURED], front=None)
        count = len(group.latents)
        batch = FlowBatch((group,), batch.text[:count], batch.text_mask[:count])
        start = self._start(batch, derived_generator(self.clips.config.seed, "sample error"))
        steps = self.config.steps
        ours = self._student_path(batch, start, steps).tokens
        theirs = self._teacher_path(batch, start, _state(start), 0, steps * self.config.substeps).tokens
        counted = start.counted[..., None]
        return float(((ours - theirs).square() * counted).sum() / (theirs.square() * counted).sum())

    def write_samples(self, folder: Path, step: int, ema: bool) -> dict[str, float]:
        """Videos of the sample prompts in K steps, as a contact sheet, and the ``sample_error``."""
        self.clips.write_samples(folder, step, ema)
        return {"sample_error": self.sample_error()}

    def _start(self, batch: FlowBatch, generator: torch.Generator) -> Noised:
        """The batch at t = 1, with what is given."""
        causal = self.model.transformer.config.causal_positions
        return noise_batch(batch.groups, self.clips.config, generator, causal, time=lambda b, _mu: torch.ones(b))

    def _student_path(self, batch: FlowBatch, start: Noised, steps: int) -> TokenState:
        """The state after the student's first ``steps`` steps."""
        state = _state(start)
        if steps == 0:
            return state
        prompts = Prompts(_context(self.model.transformer, batch, start))
        velocity = guided_velocity(self.model.transformer, prompts, state, guidance_curve(), "attention_values")
        mine = self.path[:: self.config.substeps]
        for done in euler(velocity, state, torch.tensor(mine[:steps]), stop_at=mine[steps]):
            state = done.state
        return state

    def _teacher_path(self, batch: FlowBatch, start: Noised, state: TokenState, first: int, end: int) -> TokenState:
        """From one of the times of the path to a later one, with guidance."""
        null = self.clips.null.float().expand(len(batch.text), -1, -1)
        unprompted = batch._replace(text=null, text_mask=torch.ones(null.shape[:2], dtype=torch.bool))
        prompts = Prompts(*(_context(self.teacher, texts, start) for texts in (batch, unprompted)))
        velocity = guided_velocity(
            self.teacher, prompts, state, guidance_curve(cfg=self.config.cfg), "attention_values"
        )
        for done in euler(velocity, state, torch.tensor(self.path[first:end]), stop_at=self.path[end]):
            state = done.state
        return state


def _context(transformer: VideoTransformer, batch: FlowBatch, start: Noised) -> Context:
    return transformer.prepare(start.positions, batch.text, batch.text_mask, start.real)


def _state(start: Noised) -> TokenState:
    """The state of a batch at t = 1, where every token's time is 1 - strength."""
    return TokenState(
        start.tokens, torch.zeros_like(start.tokens), 1 - start.times, start.positions, start.tokens.shape[1]
    )


def _uncached() -> AbstractContextManager[object]:
    """Autocast as it is, but the weights that it casts are not kept: without a gradient they would serve the loss."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.is_autocast_enabled("cpu"), cache_enabled=False)
