"""Guidance of the velocity: away from the negative prompt (CFG), away from a weakened network (STG), and rescaling.

    v = v_neg + cfg (v_pos - v_neg) + stg (v_pos - v_weak)          then scaled towards the deviation of v_pos

CFG: Ho & Salimans 2022. CFG*: the negative velocity is first projected onto the positive one (Fan et al. 2025). STG,
spatio-temporal guidance: v_weak comes from the same network and prompt with parts of some blocks left out (Hyung et al.
2024; which parts: ``models.transformer.Skip``). All may change over the steps, by the time t (``GuidanceCurve``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How one step is guided.

    cfg          how far to go from the negative prompt's velocity past the prompt's; 1 ignores the negative prompt
    cfg_star     project the negative velocity onto the positive one first
    stg          how far to go away from the weakened network's velocity; 0 does without it
    skip_blocks  the blocks that are weakened for it
    rescale      how much of the prompt's own standard deviation to restore afterwards, 0 (off) to 1 (all)
    """

    cfg: float = 1.0
    cfg_star: bool = False
    stg: float = 0.0
    skip_blocks: tuple[int, ...] = ()
    rescale: float = 0.0

    @property
    def needs_negative(self) -> bool:
        """Whether the negative prompt's velocity must be computed at all."""
        return self.cfg != 1.0

    @property
    def needs_weak(self) -> bool:
        """Whether the weakened network's velocity must be computed at all."""
        return self.stg > 0.0


@dataclass(frozen=True)
class GuidanceCurve:
    """Guidance by time: a step at t takes the first entry whose time is at most t, or else the last one."""

    times: tuple[float, ...]
    values: tuple[Guidance, ...]

    def at(self, t: float) -> Guidance:
        """The guidance of a step that starts at ``t``."""
        return next((value for time, value in zip(self.times, self.values, strict=True) if time <= t), self.values[-1])

    @property
    def needs_negative(self) -> bool:
        """Whether any step needs the negative prompt."""
        return any(value.needs_negative for value in self.values)


def guidance_curve(
    *,
    cfg: float | Sequence[float] = 1.0,
    stg: float | Sequence[float] = 0.0,
    rescale: float | Sequence[float] = 0.0,
    skip_blocks: Sequence[int] | Sequence[Sequence[int]] = (),
    cfg_star: bool = False,
    times: Sequence[float] | None = None,
) -> GuidanceCurve:
    """A curve from settings that are each one value for all steps, or a list with one value for each of ``times``.

    Raises RequestError if there are lists of other lengths than ``times``, or without any ``times``.
    """
    per_step = len(skip_blocks) > 0 and not isinstance(skip_blocks[0], int)
    blocks: float | Sequence[object] = list(skip_blocks) if per_step else 0.0
    lists = {"cfg": cfg, "stg": stg, "rescale": rescale, "skip_blocks": blocks}
    given = {name: len(value) for name, value in lists.items() if isinstance(value, Sequence)}
    if given and times is None:
        raise RequestError(f"{', '.join(given)}: one value for each of several times, but no guidance times are given.")
    count = 1 if times is None else len(times)
    for name, length in given.items():
        if length != count:
            raise RequestError(f"{name} has {length} values for {count} guidance times; give as many, or one for all.")

    def entry(value: float | Sequence[float], index: int) -> float:
        return value[index] if isinstance(value, Sequence) else value

    return GuidanceCurve(
        (0.0,) if times is None else tuple(times),
        tuple(
            Guidance(
                cfg=entry(cfg, i),
                cfg_star=cfg_star,
                stg=entry(stg, i),
                skip_blocks=tuple(skip_blocks[i] if per_step else skip_blocks),  # type: ignore[arg-type]  # either form
                rescale=entry(rescale, i),
            )
            for i in range(count)
        ),
    )


def guide(
    positive: Float[Tensor, "b n c"],
    negative: Float[Tensor, "b n c"] | None,
    weak: Float[Tensor, "b n c"] | None,
    guidance: Guidance,
) -> Float[Tensor, "b n c"]:
    """The guided velocity; ``negative`` and ``weak`` are None where the guidance does not need them."""
    guided = positive
    if guidance.needs_negative:
        assert negative is not None
        start = _projected(negative, positive) if guidance.cfg_star else negative
        guided = start + guidance.cfg * (positive - start)
    if guidance.needs_weak:
        assert weak is not None
        guided = guided + guidance.stg * (positive - weak)
    if guidance.rescale == 0:
        return guided
    ratio = _std(positive) / _std(guided)
    return guided * (guidance.rescale * ratio + 1 - guidance.rescale)


def _projected(negative: Tensor, positive: Tensor) -> Tensor:
    """The multiple of ``negative`` that is nearest to ``positive``, in each sample."""
    product = (positive * negative).sum((1, 2), keepdim=True)
    return negative * (product / (negative.square().sum((1, 2), keepdim=True) + 1e-8))


def _std(x: Tensor) -> Tensor:
    return torch.std(x, dim=(1, 2), keepdim=True)
