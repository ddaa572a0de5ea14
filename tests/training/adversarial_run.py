"""A tiny adversarial VAE run in a process of its own: `python adversarial_run.py CLIPS OUT STEPS ACCUMULATE`.

Under torchrun its ranks share the batches of a step.
"""

import sys
from pathlib import Path

import torch

from openltx.data.datasets import ClipBatches, Draw, Stage, clips_of, read_clip
from openltx.media.transforms import to_tensor
from openltx.models.critic import CriticConfig
from openltx.models.presets import vae_preset
from openltx.training.adversarial import AdversarialConfig, Critic
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.loop import run
from openltx.training.vae import VAELossConfig, VAETask, new_autoencoder


def main(clips: Path, out: Path, steps: int, accumulate: int) -> None:
    torch.set_num_threads(1)
    task = VAETask(
        model=new_autoencoder(vae_preset("tiny"), seed=0),
        data=ClipBatches(clips, (Stage(until=99, draws=(Draw(clips=1, frames=9),)),), seed=0),
        heldout=[to_tensor(read_clip(clips, clips_of(clips, "heldout")[0])[:9])],
        losses=VAELossConfig(),
        optim=OptimConfig(kind="muon", lr=2e-3, muon_lr=0.02),
        critic=Critic(AdversarialConfig(critic=CriticConfig(channels=8, layers=2), critic_from=1, weight_from=2)),
        critic_optim=OptimConfig(lr=1e-3),
    )
    config = RunConfig(
        steps=steps,
        out=out,
        accumulate=accumulate,
        autocast="none",
        tensorboard=False,
        progress=False,
        checkpoint_every=2,
    )
    run(task, config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
