"""A named training run of the Video-VAE: what it trains, on what, with which losses; and how that becomes a task."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from openltx.data.datasets import ClipBatches, Stage, clips_of, read_clip
from openltx.errors import RunError
from openltx.media.transforms import to_tensor
from openltx.models.lpips import LPIPS
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder
from openltx.training.adversarial import AdversarialConfig, Critic
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.vae import VAELossConfig, VAETask, new_autoencoder

SAMPLED_CLIPS, SAMPLED_FRAMES = 6, 25


@dataclass(frozen=True, kw_only=True)
class VAERecipe:
    """All of a run but its data."""

    model: VAEConfig | None = None  # None: the architecture of the model that the run starts from
    start: Literal["nothing", "base"] = "nothing"
    trained: Literal["all", "decoder"] = "all"
    decoder_base_channels: int | None = None  # a decoder of this width, from nothing, for the base's latents
    stages: tuple[Stage, ...]
    max_stride: int = 1
    losses: VAELossConfig
    optim: OptimConfig
    adversarial: AdversarialConfig | None = None
    critic_optim: OptimConfig | None = None
    steps: int
    accumulate: int = 1
    ema_decay: float = 0.998
    sample_every: int = 250

    def run(self, out: Path, seed: int = 0) -> RunConfig:
        """The loop's settings."""
        return RunConfig(
            steps=self.steps,
            out=out,
            seed=seed,
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
            sample_every=self.sample_every,
            log_every=10,
        )


def vae_task(
    recipe: VAERecipe,
    data: Mapping[Path, float],
    *,
    seed: int,
    base: VideoAutoencoder | None = None,
    perceptual: LPIPS | None = None,
) -> VAETask:
    """The task of a recipe on clip folders (with the share of batches that each gives).

    Raises RunError if the recipe needs a ``base`` and has none, or the reverse.
    """
    if (recipe.start == "base") != (base is not None):
        needed = (
            "starts from a trained model: give one with --base" if base is None else "starts from nothing: no --base"
        )
        raise RunError(f"This recipe {needed}.")
    return VAETask(
        model=starting_point(recipe, seed, base),
        data=ClipBatches(data, recipe.stages, seed=seed, max_stride=recipe.max_stride),
        heldout=sampled_clips(data),
        losses=recipe.losses,
        optim=recipe.optim,
        perceptual=perceptual,
        critic=Critic(recipe.adversarial, seed) if recipe.adversarial is not None else None,
        critic_optim=recipe.critic_optim,
        trained=recipe.trained,
    )


def starting_point(recipe: VAERecipe, seed: int, base: VideoAutoencoder | None) -> VideoAutoencoder:
    """The model at step 0, in float32."""
    config = recipe.model or (base.config if base is not None else None)
    assert config is not None, "a recipe without a base names its model"
    if recipe.decoder_base_channels is not None:
        config = replace(config, decoder_base_channels=recipe.decoder_base_channels)
    model = new_autoencoder(config, seed)
    if base is None:
        return model
    known = {name: tensor.float() for name, tensor in base.state_dict().items()}
    if recipe.decoder_base_channels is not None:
        known = {name: tensor for name, tensor in known.items() if not name.startswith("decoder.")}
    ours = model.state_dict()
    strangers = [name for name, tensor in known.items() if name not in ours or ours[name].shape != tensor.shape]
    if strangers:
        raise RunError(f"The base is of another architecture than the recipe's: {strangers[0]} does not fit.")
    model.load_state_dict(ours | known)
    return model


def sampled_clips(data: Mapping[Path, float]) -> list[torch.Tensor]:
    """The first held-out clips of every folder, cut to 8k + 1 frames: what the run's samples show."""
    each = max(1, SAMPLED_CLIPS // len(data))
    chosen = [(folder, clip) for folder in data for clip in clips_of(folder, "heldout")[:each]]
    clips = [read_clip(folder, clip)[:SAMPLED_FRAMES] for folder, clip in chosen]
    return [to_tensor(frames[: (len(frames) - 1) // 8 * 8 + 1]) for frames in clips]
