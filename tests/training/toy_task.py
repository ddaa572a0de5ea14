"""A tiny task with all that makes resuming hard: dropout, a running buffer, two optimizers, a convolution.

Run as a script, it trains in a process of its own: `python toy_task.py OUT STEPS SECONDS_PER_STEP`.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from openltx.noise import derived_generator
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.loop import Phase, run
from openltx.training.optim import ExponentialAverage, matrices_for_muon

MUON = OptimConfig(kind="muon", lr=0.01, muon_lr=0.02, weight_decay=0.1, schedule="trapezoid", warmup=4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 3, padding=1)
        self.middle = nn.Linear(24, 24)
        self.out = nn.Linear(24, 1)
        self.drop = nn.Dropout(0.2)
        self.register_buffer("mean", torch.zeros(()))
        for index, parameter in enumerate(self.parameters()):
            with torch.no_grad():
                parameter.normal_(0, 0.3, generator=derived_generator(0, "init", index))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(x).tanh().flatten(1)
        if self.training:
            self.mean.lerp_(hidden.detach().float().mean(), 0.1)
        return self.out(self.drop(self.middle(hidden).tanh()) - self.mean)[:, 0]


class ToyTask:
    """Learns the mean of its noisy input; `broken_at` makes the loss of that step infinite."""

    name = "toy"

    def __init__(self, optim: OptimConfig = MUON, *, seconds: float = 0.0, broken_at: int = -1) -> None:
        self.module = Net()
        self.seconds = seconds
        self.broken_at = broken_at
        self.settings: Mapping[str, object] = {"inputs": (2, 4)}
        matrices = matrices_for_muon(self.module, exclude=[self.module.out])
        parameters = list(self.module.parameters())
        self.phases = [
            Phase(name="fit", parameters=parameters, muon_parameters=matrices, optim=optim, loss=self.loss),
        ]
        self.sampled: list[tuple[int, bool]] = []

    def batch(self, step: int, micro: int) -> Tensor:
        time.sleep(self.seconds)
        return torch.randn(8, 2, 4, generator=derived_generator(5, "batch", step, micro))

    def after_step(self, step: int) -> None:
        """Nothing to keep."""

    def on_step(self, step: int, average: ExponentialAverage) -> None:
        pass

    def loss(self, batch: Tensor, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        noisy = batch + 0.1 * torch.randn(batch.shape, generator=generator)
        error = self.module(noisy).float() - batch.mean(dim=(1, 2))
        loss = error.square().mean() / (0.0 if step == self.broken_at else 1.0)
        return loss, {"absolute": error.abs().mean()}

    def write_samples(self, folder: Path, step: int, ema: bool) -> dict[str, float]:
        assert folder.is_dir()
        self.sampled.append((step, ema))
        torch.randn(3)  # a draw from the global generator must not change what is learned
        return {"norm": float(self.module.out.weight.norm())}


def toy_config(out: Path, **changes: object) -> RunConfig:
    """Quiet settings with a checkpoint every 3 steps."""
    settings: dict[str, object] = {
        "steps": 20, "out": out, "accumulate": 2, "ema_decay": 0.9, "threads": 1,
        "checkpoint_every": 3, "sample_every": 7, "tensorboard": False, "progress": False,
    }  # fmt: skip
    return RunConfig(**{**settings, **changes})  # type: ignore[arg-type]


if __name__ == "__main__":
    run(ToyTask(seconds=float(sys.argv[3])), toy_config(Path(sys.argv[1]), steps=int(sys.argv[2])))
