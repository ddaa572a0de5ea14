"""``openltx train latents`` and ``openltx train flow``."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from openltx.cli.train.options import AllowChanges, MaxSeconds, Steps, Threads, limited
from openltx.errors import RunError

if TYPE_CHECKING:
    from openltx.models.transformer import TransformerConfig, VideoTransformer


def latents(recipe: str, *, data: Path, vae: Path, out: Path, limit: int | None = None) -> None:
    """Encode clips and captions once, for the transformer's training.

    Parameters
    ----------
    recipe
        The named run; so far "playroom".
    data
        Clip folder with a manifest.
    vae
        Model file whose VAE encodes (see ``openltx train export``).
    out
        Folder of the latents.
    limit
        Take only so many clips.
    """
    from rich.progress import Progress, TimeRemainingColumn

    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM, load_text_encoder
    from openltx.data.precompute import precompute
    from openltx.kernels.volume import lay_out_kernels
    from openltx.pipelines.residency import fast_dtype

    require_recipe(recipe)
    encoder = load_vae(vae, dtype=fast_dtype(torch.device("cpu")))
    lay_out_kernels(encoder)
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn()) as bar:
        shown = bar.add_task("encoding clips", total=None)
        precompute(
            data,
            out,
            encoder,
            load_text_encoder(MINILM),
            limit=limit,
            progress=lambda done, total: bar.update(shown, completed=done, total=total),
        )


def flow(
    recipe: str,
    *,
    latents: Path,
    vae: Path,
    out: Path,
    base: Path | None = None,
    steps: Steps = None,
    max_seconds: MaxSeconds = None,
    threads: Threads = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train the transformer on precomputed latents.

    Parameters
    ----------
    recipe
        The named run; so far "playroom".
    latents
        Folder that ``openltx train latents`` made.
    vae
        The model file whose VAE made them; sample videos are decoded with it.
    out
        Folder of the run: checkpoints, samples, logs.
    base
        Model file whose transformer the run starts from (default: from nothing).
    """
    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM, load_text_encoder
    from openltx.data.precompute import read_examples
    from openltx.models.bundle import LTXModel
    from openltx.recipes import playroom
    from openltx.training import loop
    from openltx.training.flow import FlowTask, inference_schedule

    require_recipe(recipe)
    config = limited(playroom.flow_run(out), steps, max_seconds, threads)
    model = LTXModel(
        name=recipe,
        transformer=starting_point(playroom.TRANSFORMER, base, config.seed),
        vae=load_vae(vae, dtype=torch.float32),
        text=load_text_encoder(MINILM),
        schedule=inference_schedule(playroom.FLOW),
        sampling=playroom.SAMPLING,
    )
    task = FlowTask(model, read_examples(latents), playroom.FLOW, playroom.FLOW_OPTIM, playroom.SAMPLE_PROMPTS)
    loop.run(task, config, allow_changes=allow_changes)


def starting_point(config: "TransformerConfig", base: Path | None, seed: int) -> "VideoTransformer":
    """The transformer at step 0, in float32: drawn from the seed, or that of ``base``; RunError if it does not fit."""
    from openltx.checkpoints.load import load_transformer
    from openltx.models.transformer import VideoTransformer, init_weights

    if base is None:
        transformer = VideoTransformer(config)
        init_weights(transformer, torch.Generator().manual_seed(seed))
        return transformer
    transformer = load_transformer(base, dtype=torch.float32)
    if transformer.config != config:
        raise RunError(f"The transformer of {base} is not of the recipe's architecture: {transformer.config}.")
    return transformer.train()


def require_recipe(name: str) -> None:
    """Raise RunError unless there is a transformer recipe of this name."""
    if name != "playroom":
        raise RunError(f'There is no recipe "{name}". The recipes are: playroom.')
