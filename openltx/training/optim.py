"""Optimizers of a phase (Muon for matrices, AdamW for the rest) and the moving average of the weights.

Muon: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". The momentum of a matrix is
replaced by its nearest semi-orthogonal one, so that all its directions learn equally fast.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openltx.distributed.ranks import piece_like, whole
from openltx.errors import RunError
from openltx.training.config import OptimConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic with the steepest rise at 0 that keeps singular values near 1
NEWTON_SCHULZ_STEPS = 5
ELONGATED = 8  # from this ratio of the sides on, the iteration on the Gram matrix is the faster one


class PhaseOptimizer:
    """Muon and AdamW over the parameters of one phase, with state that is kept by parameter name."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], matrices: Mapping[str, nn.Parameter], config: OptimConfig
    ) -> None:
        """`parameters`: all of the phase by name; `matrices`: those of them for Muon, ignored with kind "adamw"."""
        self.config = config
        chosen = dict(matrices) if config.kind == "muon" else {}
        if config.kind == "muon" and not chosen:
            raise RunError('the optimizer is "muon" but no parameters are given to it; list them, or use "adamw"')
        self.parameters = {**parameters, **chosen}
        others = [parameter for name, parameter in self.parameters.items() if name not in chosen]
        self.optimizers: list[torch.optim.Optimizer] = []
        if chosen:
            self.optimizers.append(Muon(list(chosen.values()), config))
        if others:
            self.optimizers.append(_adamw(others, config))

    def step(self, step: int, steps: int) -> dict[str, float]:
        """Update every parameter that has a gradient; returns the learning rates used."""
        rate = self.config.rate(step, steps)
        used = {}
        for optimizer in self.optimizers:
            name, base = ("muon_lr", self.config.muon_lr) if isinstance(optimizer, Muon) else ("lr", self.config.lr)
            for group in optimizer.param_groups:
                group["lr"] = rate * base
            optimizer.step()
            used[name] = rate * base
        return used

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters of the phase."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the optimizers as "<state>:<parameter name>"."""
        states = self._states()
        return {f"{key}:{name}": value for name in self.parameters for key, value in states.get(name, {}).items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of state_dict; a name or shape that does not belong here raises RunError."""
        owners = {name: optimizer for optimizer in self.optimizers for name in self._names(optimizer)}
        states: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for label, value in tensors.items():
            key, name = label.split(":", 1)
            if name not in owners or value.shape not in (self.parameters[name].shape, torch.Size()):
                raise RunError(f"the optimizer state {label!r} {tuple(value.shape)} fits no parameter of this run")
            # The layout of the parameter (channels last, ...) is kept: safetensors only stores contiguous tensors.
            place = torch.empty_like(self.parameters[name] if value.ndim else value, dtype=value.dtype)
            states[name][key] = place.to(self.parameters[name].device).copy_(value).detach()
        for name, optimizer in owners.items():
            optimizer.state.pop(self.parameters[name], None)
            if name in states:
                optimizer.state[self.parameters[name]] = states[name]

    def empty_state(self, label: str) -> Tensor:
        """Room for one tensor of `state_dict`, shaped (and sharded) as the optimizer will want it."""
        key, name = label.split(":", 1)
        if name not in self.parameters:
            raise RunError(f"the optimizer state {label!r} fits no parameter of this run")
        return torch.zeros(()) if key == "step" else torch.zeros_like(self.parameters[name]).detach()

    def _states(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: optimizer.state[self.parameters[name]]
            for optimizer in self.optimizers
            for name in self._names(optimizer)
            if self.parameters[name] in optimizer.state
        }

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return [name for name, parameter in self.parameters.items() if id(parameter) in held]


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions, read as (first, all others) matrices.

    Why not torch.optim.Muon: it refuses convolution kernels, and it orthogonalises one matrix after the other; here all
    matrices of one shape go through Newton-Schulz as one batch, and the long matrices of convolutions (27 times as
    many columns as input channels) by way of their small Gram matrices, in half the time. Of matrices in pieces on
    several ranks, each rank gathers the whole update, orthogonalises it and keeps its piece.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], config: OptimConfig) -> None:
        flat = [tuple(parameter.shape) for parameter in parameters if parameter.ndim < 2]
        if flat:
            raise RunError(f"Muon takes parameters of two or more dimensions, not {flat}; leave these to AdamW")
        defaults = {"lr": config.muon_lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "Muon does not call closures"
        for group in self.param_groups:
            kinds: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    kinds[(parameter.shape[0], parameter.shape[1:].numel())].append(parameter)
            for (rows, columns), members in kinds.items():
                lr = group["lr"] * max(1.0, rows / columns) ** 0.5
                updates = [whole(self._nesterov(parameter, group["momentum"])).flatten(1) for parameter in members]
                for parameter, matrix in zip(members, orthogonalise(torch.stack(updates)), strict=True):
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.add_(piece_like(parameter, matrix.view(parameter.shape)), alpha=-lr)

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None, "only parameters with a gradient are updated"
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1.0 - momentum)
        return gradient.lerp(average, momentum)


def orthogonalise(matrices: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k rows columns"]:
    """The semi-orthogonal matrix near each one (singular values about 0.7 to 1.2), by Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    elongated = wide.shape[2] >= ELONGATED * wide.shape[1]
    result = _iterate_on_gram(wide) if elongated else _iterate(wide.bfloat16()).to(matrices.dtype)
    return result.mT if tall else result


def _iterate(x: Float[Tensor, "k m n"]) -> Float[Tensor, "k m n"]:
    """x <- (a + b G + c G^2) x with G = x x^T, in the precision of x; m <= n."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterate_on_gram(x: Float[Tensor, "k m n"]) -> Float[Tensor, "k m n"]:
    """The same iteration on G alone, whose polynomials commute: x is read twice in all instead of twice a step.

    In float32, since a rounding error of G that makes an eigenvalue negative grows more than tenfold with each step.
    """
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.mT
    product = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for _ in range(NEWTON_SCHULZ_STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ x


def matrices_for_muon(module: nn.Module, exclude: Sequence[nn.Module] = ()) -> list[nn.Parameter]:
    """Weights of the linear and convolution layers in `module`, without those in `exclude` (first and last layers)."""
    skipped = {id(parameter) for layer in exclude for parameter in layer.parameters()}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]
    weights = [value for layer in layers for name, value in layer.named_parameters(recurse=False) if name == "weight"]
    return [weight for weight in weights if weight.requires_grad and id(weight) not in skipped]


class ExponentialAverage:
    """Moving average of a module's parameters in float32; buffers are not averaged."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.average = {name: value.detach().float().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after `step` (0-based); the decay is small at first, to forget the start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [parameter.float() for parameter in self.module.parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1.0 - decay)

    @torch.no_grad()
    def copy_weights(self) -> None:
        """Take the module's present weights as the average."""
        for name, parameter in self.module.named_parameters():
            self.average[name].copy_(parameter)

    @torch.no_grad()
    def overwrite_weights(self) -> None:
        """Let the module go on from the average."""
        for name, parameter in self.module.named_parameters():
            parameter.copy_(self.average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module has the averaged weights (no copy is made: do not train there)."""
        raw = {name: parameter.data for name, parameter in self.module.named_parameters()}
        try:
            for name, parameter in self.module.named_parameters():
                parameter.data = self.average[name].to(parameter.dtype)
            yield
        finally:
            for name, parameter in self.module.named_parameters():
                parameter.data = raw[name]


def _adamw(parameters: Sequence[nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    decayed = [parameter for parameter in parameters if parameter.ndim >= 2]
    plain = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [
        {"params": members, "weight_decay": decay}
        for members, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if members
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
