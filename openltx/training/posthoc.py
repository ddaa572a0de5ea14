"""Averages of the weights whose length is chosen after the run. (Karras et al. 2024, "Analyzing and improving the
training dynamics of diffusion models", section 3.)

During the run two averages with power-function profiles are kept and stored now and then:

    w(tau) ~ tau^gamma for tau in [0, t]      update:  average <- lerp(average, weights, 1 - (1 - 1/t)^(gamma + 1))

The profile of any other length is, to a small error, a linear combination of those of the stored ones (least squares on
the profiles' inner products), and the same combination of the stored weights is that average. A length is given as
sigma_rel, the standard deviation of the profile as a share of the run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from openltx.errors import RunError

LENGTHS = (0.05, 0.10)
FOLDER = "averages"


class PowerAverages:
    """Two averages of a module's parameters, in float32."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        weights = {name: value.detach().float() for name, value in module.named_parameters()}
        self.averages = {length: {name: value.clone() for name, value in weights.items()} for length in LENGTHS}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after ``step`` (0-based)."""
        weights = [value.float() for _, value in self.module.named_parameters()]
        for length, average in self.averages.items():
            keep = (1 - 1 / (step + 1)) ** (gamma_of(length) + 1)
            torch._foreach_lerp_(list(average.values()), weights, 1 - keep)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor as "<length>:<parameter>"."""
        return {
            f"{length:g}:{name}": value for length, average in self.averages.items() for name, value in average.items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``; RunError if the averages were not kept so far."""
        missing = [label for label in self.state_dict() if label not in tensors]
        if missing:
            raise RunError(
                "this run kept no averages for a later choice of length so far; start it without posthoc_every"
            )
        for label, value in self.state_dict().items():
            value.copy_(tensors[label])

    def store(self, out: Path, step: int) -> None:
        """Write both as they are after ``step`` completed steps, in float16, atomically."""
        folder = out / FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / f"step_{step:08d}.safetensors"
        partial = path.with_name(f".partial_{path.name}")
        save_file({label: value.half() for label, value in self.state_dict().items()}, partial)
        partial.replace(path)


@dataclass(frozen=True)
class Stored:
    """One stored average: the step after which, its length, its file."""

    step: int
    length: float
    path: Path


def averaged_weights(run: Path, length: float) -> dict[str, Tensor]:
    """The weights of a run averaged with a profile of sigma_rel ``length``, at its last stored step.

    RunError if the run stored no averages, or the length cannot be combined from them.
    """
    files = sorted((run / FOLDER).glob("step_*.safetensors"))
    if not files:
        raise RunError(f"{run} stored no averages; a recipe stores them with posthoc_every")
    if not LENGTHS[0] * 0.5 <= length <= 0.25:
        raise RunError(
            f"an average of length {length:g} cannot be combined; choose one from {LENGTHS[0] * 0.5:g} to 0.25"
        )
    stored = [Stored(int(path.stem.removeprefix("step_")), known, path) for path in files for known in LENGTHS]
    shares = combination([(s.step, gamma_of(s.length)) for s in stored], (stored[-1].step, gamma_of(length)))
    weights: dict[str, Tensor] = {}
    for one, share in zip(stored, shares, strict=True):
        prefix = f"{one.length:g}:"
        try:
            with safe_open(one.path, framework="pt") as file:
                for label in file.keys():  # noqa: SIM118 (no mapping)
                    if label.startswith(prefix):
                        name = label.removeprefix(prefix)
                        part = share * file.get_tensor(label).double()
                        weights[name] = weights[name] + part if name in weights else part
        except (OSError, SafetensorError) as error:
            raise RunError(f"cannot read the averages in {one.path}: {error}") from error
    return {name: value.float() for name, value in weights.items()}


def combination(stored: Sequence[tuple[int, float]], wanted: tuple[int, float]) -> list[float]:
    """Shares of the profiles ``stored``, as (step, gamma), whose sum is nearest to the ``wanted`` one."""
    gram = np.array([[_product(a, b) for b in stored] for a in stored])
    onto = np.array([_product(a, wanted) for a in stored])
    return np.linalg.lstsq(gram, onto, rcond=1e-12)[0].tolist()


def gamma_of(length: float) -> float:
    """The exponent of the profile whose standard deviation is the share ``length`` of the run.

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)); the largest real root.
    """
    inverse = length**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-6))


def _product(a: tuple[int, float], b: tuple[int, float]) -> float:
    """Integral of the product of two profiles (gamma + 1) tau^gamma / t^(gamma + 1)."""
    (ta, ga), (tb, gb) = a, b
    least = min(ta, tb)
    logarithm = (ga + gb + 1) * math.log(least) - (ga + 1) * math.log(ta) - (gb + 1) * math.log(tb)
    return (ga + 1) * (gb + 1) / (ga + gb + 1) * math.exp(logarithm)
