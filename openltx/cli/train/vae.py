"""``openltx train vae``."""

from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from openltx.checkpoints.load import load_vae
from openltx.cli.train.options import AllowChanges, MaxSeconds, Steps, Threads, limited
from openltx.errors import RunError
from openltx.recipes.vae import VAERecipe


def vae(  # noqa: PLR0913 (a flag each)
    recipe: str,
    *,
    data: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    out: Path,
    share: Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")] = None,
    base: Path | None = None,
    seed: int = 0,
    recompute: Annotated[bool, Parameter(negative="")] = False,
    steps: Steps = None,
    max_seconds: MaxSeconds = None,
    threads: Threads = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train a Video-VAE on the clips of one or more folders. It goes on where it was stopped.

    torchrun --nproc-per-node 2 -m openltx train vae ... shares the batches of a step out among processes.

    Parameters
    ----------
    recipe
        The named run: "playroom" (from nothing), "film" (goes on from a model, with the reconstruction GAN), "decoder"
        (a model's decoder only; its latents stay as they are).
    data
        Clip folders with manifests, as ``openltx data world`` and ``openltx data footage`` make them.
    out
        Folder of the run: checkpoints, samples, logs.
    share
        How much each folder gives, relative to the others (default: all alike).
    base
        Weight file whose VAE the run starts from, for recipes that want one.
    seed
        Of the weights, the batches and the noise.
    recompute
        Gradient checkpointing: less memory, a third more time.
    """
    from openltx.checkpoints.assets import load_lpips
    from openltx.models.vae.autoencoder import recompute_blocks
    from openltx.recipes.vae import vae_task
    from openltx.training import loop

    chosen = _vae_recipe(recipe)
    if share is not None and len(share) != len(data):
        raise RunError(f"{len(share)} shares for {len(data)} folders; give one for each --data, or none.")
    if len(set(data)) < len(data):
        raise RunError("A folder is given twice with --data; give it once, with a larger --share.")
    task = vae_task(
        chosen,
        dict(zip(data, share or [1.0] * len(data), strict=True)),
        seed=seed,
        base=load_vae(base, dtype=torch.float32) if base is not None else None,
        perceptual=load_lpips("vgg") if chosen.losses.lpips else None,
    )
    recompute_blocks(task.model, recompute)
    loop.run(task, limited(chosen.run(out, seed), steps, max_seconds, threads), allow_changes=allow_changes)


def _vae_recipe(name: str) -> VAERecipe:
    from openltx.recipes import decoder, film, playroom

    recipes = {"playroom": playroom.VAE_RUN, "film": film.VAE_RUN, "decoder": decoder.VAE_RUN}
    if name not in recipes:
        raise RunError(f'There is no recipe "{name}" for a VAE. The recipes are: {", ".join(recipes)}.')
    return recipes[name]
