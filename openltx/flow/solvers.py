"""Solvers of the flow as iterators: the caller sees every step, and may stop, show or record it. (Paper 2.5.)"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.flow.path import TokenState, clean_estimate

Velocity = Callable[[TokenState, float], Tensor]
Noise = Callable[[Tensor], Tensor]
"""Fresh standard normal noise like the given tensor."""

_TIME_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Step:
    """One step taken, ``index`` of ``total`` (from 0).

    t, t_next   where the step began and ended
    state       the tokens at ``t_next``
    clean       the estimate of x_0 from which it was made (conditioned tokens from their own effective time)
    """

    index: int
    total: int
    t: float
    t_next: float
    state: TokenState
    clean: Float[Tensor, "b n c"]


@torch.inference_mode()
def euler(
    velocity: Velocity,
    state: TokenState,
    times: Float[Tensor, "steps"],
    *,
    stop_at: float | None = None,
    renew: Noise | None = None,
    jitter: tuple[float, Noise] | None = None,
) -> Iterator[Step]:
    """x_{t'} = x_t - (t - t') v from time to time of ``times`` (descending from the time of ``state``), then to 0.

    A token of conditioning strength s moves only once t has come down to 1 - s, as in the official sampler; at
    strength 1 never. With ``stop_at`` = t1 the times above t1 are kept and the last step ends at t1 instead of 0: the
    tokens then are z_t1, and the last denoising is left to the decoder (paper 2.1.1).

    ``renew`` gives fresh noise for every step: x_{t'} = (1 - t') x_0 + t' eps, the stochastic sampling of the distilled
    releases. ``jitter`` = (scale, noise) adds scale t^2 eps to the tokens of strength 1 before every step, so that a
    still picture does not hold the video still.
    """
    end = 0.0 if stop_at is None else stop_at
    path = steps_of(times, stop_at)
    for index, (t, t_next) in enumerate(zip(path, [*path[1:], end], strict=True)):
        if jitter is not None:
            state = _jittered(state, t, *jitter)
        v = velocity(state, t)  # b n c
        clean = clean_estimate(state.tokens, v, state.effective_t(t))
        if renew is None:
            moved = state.tokens - (t - t_next) * v
        else:
            moved = (1 - t_next) * clean + t_next * renew(state.tokens)
        moves = (t - _TIME_TOLERANCE < 1 - state.strength)[..., None]
        state = replace(state, tokens=torch.where(moves, moved, state.tokens))
        yield Step(index, len(path), t, t_next, state, clean)


def steps_of(times: Float[Tensor, "steps"], stop_at: float | None = None) -> list[float]:
    """The times at which ``euler`` takes a step: those above its end."""
    end = 0.0 if stop_at is None else stop_at
    return [t for t in times.tolist() if t > end + _TIME_TOLERANCE]


def _jittered(state: TokenState, t: float, scale: float, noise: Noise) -> TokenState:
    held = (state.strength == 1)[..., None]
    return replace(state, tokens=torch.where(held, state.clean + scale * t**2 * noise(state.tokens), state.tokens))
