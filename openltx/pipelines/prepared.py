"""What sampling needs, made once from a request; and the sampling, of one video or of several in one batch.

A small network is far from keeping a machine busy with one video's tokens: a step of the bundled model takes two thirds
of the time, for each of four videos, when they are sampled together (docs/serving.md has the figures).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.flow.guidance import GuidanceCurve
from openltx.flow.path import TokenState
from openltx.flow.solvers import Noise, Step, euler
from openltx.geometry import LatentShape
from openltx.models.text import TextContext
from openltx.models.transformer import VideoTransformer
from openltx.pipelines.draws import Draws
from openltx.pipelines.request import GenerationRequest, Sampling
from openltx.pipelines.velocity import Prompts, guided_velocity, prompts_of


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that sampling and decoding need, made once from a request; a batch of one."""

    request: GenerationRequest
    settings: Sampling
    grid: LatentShape
    state: TokenState
    times: Float[Tensor, "steps"]
    curve: GuidanceCurve
    texts: Sequence[TextContext]
    """The prompt's and, if a step needs it, the negative prompt's."""
    prompts: Prompts
    draws: Draws

    def goes_with(self, other: "Prepared") -> bool:
        """Whether both can be sampled in one batch: they differ in words, seed and given pictures at most."""
        return (
            replace(self.settings, negative="") == replace(other.settings, negative="")
            and not self.settings.cache_threshold  # it looks at the whole batch
            and torch.equal(self.times, other.times)
            and len(self.texts) == len(other.texts)
            and self.state.num_targets == other.state.num_targets
            and torch.equal(self.state.positions, other.state.positions)
        )


def sample_together(transformer: VideoTransformer, videos: Sequence[Prepared]) -> Iterator[tuple[Step, ...]]:
    """The solver's steps of videos that go with each other; each tuple has one ``Step`` for each of them.

    A video's steps are what they are without the others, but for the rounding of sums over another count of rows.
    """
    first, settings, state = videos[0], videos[0].settings, _joined([video.state for video in videos])
    prompts = first.prompts
    if len(videos) > 1:
        prompts = prompts_of(transformer, [video.texts for video in videos], first.state.positions)
    velocity = guided_velocity(transformer, prompts, state, first.curve, settings.stg_mode, settings.cache_threshold)
    renewals, pictures = zip(*(video.draws.of_steps() for video in videos), strict=True)
    steps = euler(
        velocity,
        state,
        first.times,
        stop_at=stop_of(settings),
        renew=_of_each(renewals) if settings.stochastic else None,
        jitter=(settings.image_noise, _of_each(pictures)) if settings.image_noise else None,
    )
    for step in steps:
        yield tuple(
            replace(step, state=_sample(step.state, index), clean=step.clean[index : index + 1])
            for index in range(len(videos))
        )


def stop_of(settings: Sampling) -> float | None:
    """The time at which the sampler leaves the rest to the decoder; None if it goes to 0."""
    return settings.decode_timestep if settings.last_step == "decoder" else None


def _joined(states: Sequence[TokenState]) -> TokenState:
    """Several samples as one batch."""
    if len(states) == 1:
        return states[0]
    return TokenState(
        tokens=torch.cat([state.tokens for state in states]),
        clean=torch.cat([state.clean for state in states]),
        strength=torch.cat([state.strength for state in states]),
        positions=torch.cat([state.positions for state in states]),
        num_targets=states[0].num_targets,
    )


def _sample(state: TokenState, index: int) -> TokenState:
    """One sample of a batch, without copies."""
    own = slice(index, index + 1)
    return replace(
        state,
        tokens=state.tokens[own],
        clean=state.clean[own],
        strength=state.strength[own],
        positions=state.positions[own],
    )


def _of_each(sources: Sequence[Noise]) -> Noise:
    """Every sample's own noise."""
    return lambda like: torch.cat([source(one) for source, one in zip(sources, like.split(1), strict=True)])
