"""``openltx train distill``."""

from pathlib import Path

import torch

from openltx.cli.train.flow import base_transformer, flow_recipe
from openltx.cli.train.options import AllowChanges, MaxSeconds, Steps, Threads, limited


def distill(
    recipe: str,
    *,
    base: Path,
    latents: Path,
    out: Path,
    vae: Path | None = None,
    seed: int = 0,
    steps: Steps = None,
    max_seconds: MaxSeconds = None,
    threads: Threads = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Teach a copy of a model to need a few steps and no guidance. It goes on where it was stopped.

    Parameters
    ----------
    recipe
        The named run, as in ``openltx train flow``; it says how many steps are left.
    base
        Model file whose transformer teaches, and which the student starts as.
    latents
        Folder that ``openltx data precompute`` made.
    out
        Folder of the run: checkpoints, samples, logs. ``openltx train export --flow-run`` makes a file of it.
    vae
        The model file whose VAE made the latents (default: the base).
    seed
        Of the batches and the noise.
    """
    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM, load_text_encoder
    from openltx.data.latents import LatentFolder
    from openltx.recipes.flow import distill_task
    from openltx.training import loop

    chosen = flow_recipe(recipe)
    teacher = base_transformer(base)
    assert teacher is not None
    autoencoder, text = load_vae(vae or base, dtype=torch.float32), load_text_encoder(MINILM)
    task = distill_task(chosen, LatentFolder(latents), autoencoder, text, base=teacher, seed=seed)
    config = limited(chosen.distillation_run(out, seed), steps, max_seconds, threads)
    loop.run(task, config, allow_changes=allow_changes)
