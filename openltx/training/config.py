"""Settings of a run and of its optimizers: frozen, JSON both ways, saved beside every checkpoint.

`RunConfig` is what the loop needs and nothing else; a task has its own settings (`Task.settings`). When a run is
resumed, its settings are compared with those of the checkpoint: `FREE_FIELDS` may differ, since they do not change what
is learned (or, for `threads`, only its last bits); `steps` may differ as long as every learning rate used so far stays
the same; all else needs `allow_changes`.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openltx.errors import RunError

FREE_FIELDS = (
    "out",
    "threads",
    "max_seconds",
    "checkpoint_every_seconds",
    "checkpoint_every",
    "keep_last",
    "sample_every",
    "sample_weights",
    "log_every",
    "prefetch",
    "tensorboard",
    "progress",
)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the parameters of one phase are updated; with kind "muon", AdamW still serves those not given to Muon."""

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float  # of AdamW
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.0  # decoupled; not applied to parameters with less than two dimensions
    muon_lr: float = 0.01  # times sqrt(max(1, rows / columns)) for each matrix
    momentum: float = 0.95  # of Muon, with Nesterov's look-ahead
    schedule: Literal["constant", "cosine", "linear", "trapezoid"] = "constant"
    warmup: int = 0  # steps of linear rise, with every schedule; at most half of the run
    cooldown: float = 0.2  # last share of the steps in which a trapezoid falls
    final_ratio: float = 0.0  # of the learning rate, where a schedule ends

    def rate(self, step: int, steps: int) -> float:
        """Factor in [0, 1] on both learning rates at `step` (0-based) of a run of `steps`."""
        warmup = min(self.warmup, steps // 2)
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        match self.schedule:
            case "constant":
                fall = 0.0
            case "cosine":
                fall = 0.5 - 0.5 * math.cos(math.pi * _progress(step, warmup, steps))
            case "linear":
                fall = _progress(step, warmup, steps)
            case "trapezoid":
                fall = _progress(step, steps - round(self.cooldown * steps), steps)
        return rise * (1.0 - (1.0 - self.final_ratio) * fall)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What the loop itself needs to know of a run."""

    steps: int
    out: Path  # checkpoints/, samples/, metrics.jsonl, evaluations.jsonl, curves.png, run.json, ...
    seed: int = 0
    accumulate: int = 1  # batches for each step
    clip_norm: float = 1.0  # of each phase's gradient; math.inf for none
    ema_decay: float = 0.999
    posthoc_every: int | None = None  # steps after which averages are stored whose length is chosen later (posthoc.py)
    autocast: Literal["bf16", "none"] = "bf16"  # weights and optimizer state are float32 in both
    threads: int | None = None  # None leaves torch's setting alone
    max_seconds: float | None = None  # wall time of this call, after which it stops with a checkpoint
    checkpoint_every_seconds: float = 240.0
    checkpoint_every: int | None = None  # also every so many steps
    keep_last: int = 2
    sample_every: int | None = None  # steps; None writes samples only at the end
    sample_weights: Literal["ema", "raw", "both"] = "ema"
    log_every: int = 1
    prefetch: bool = True  # the next batch is made in a background thread
    tensorboard: bool = True
    progress: bool = True  # on the console (stderr)

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "accumulate",
            "keep_last",
            "log_every",
            "checkpoint_every",
            "sample_every",
            "threads",
            "posthoc_every",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RunError(f"{name} is {value}; it must be 1 or more")
        if not 0.0 <= self.ema_decay < 1.0:
            raise RunError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if not self.clip_norm > 0.0:
            raise RunError(f"clip_norm is {self.clip_norm}; it must be positive (math.inf turns clipping off)")


def as_json(value: object) -> object:
    """`value` in JSON's types: dataclasses and mappings become objects, tuples arrays, paths and infinities text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def run_config_from_json(values: Mapping[str, object]) -> RunConfig:
    """The inverse of `as_json` for a RunConfig; unknown or missing fields raise RunError."""
    plain = dict(values)
    try:
        plain["out"] = Path(str(plain["out"]))
        plain["clip_norm"] = float(str(plain["clip_norm"]))
        return RunConfig(**plain)  # type: ignore[arg-type]
    except (TypeError, KeyError, ValueError) as error:
        raise RunError(f"these are not the settings of a run: {error}") from error


def optim_config_from_json(values: Mapping[str, object]) -> OptimConfig:
    """The inverse of `as_json` for an OptimConfig; unknown or missing fields raise RunError."""
    try:
        return OptimConfig(**{**values, "betas": tuple(values["betas"])})  # type: ignore[arg-type]
    except (TypeError, KeyError) as error:
        raise RunError(f"these are not the settings of an optimizer: {error}") from error


def changed_fields(old: object, new: object, path: str = "") -> dict[str, tuple[object, object]]:
    """Dotted names of the leaves in which two JSON values differ, with both values ("absent" where there is none)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        changes: dict[str, tuple[object, object]] = {}
        for key in sorted({*old, *new}):
            inner = f"{path}.{key}" if path else key
            changes |= changed_fields(old.get(key, "absent"), new.get(key, "absent"), inner)
        return changes
    return {} if json.dumps(old) == json.dumps(new) else {path: (old, new)}


def _progress(step: int, start: int, end: int) -> float:
    """How far `step` has gone from `start` (0) to `end` (1); the last step, end - 1, still trains a little."""
    return min(1.0, max(0.0, (step - start + 1) / (end - start + 1)))
