"""``openltx train flow``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from cyclopts import Parameter

from openltx.cli.train.options import ONE_PROCESS, AllowChanges, MaxSeconds, ParallelFlags, Steps, Threads, limited
from openltx.errors import RunError

if TYPE_CHECKING:
    from openltx.models.transformer import VideoTransformer
    from openltx.recipes.flow import FlowRecipe

Switch = Parameter(negative="")


def flow(  # noqa: PLR0913 (a flag each)
    recipe: str,
    *,
    latents: Path,
    vae: Path,
    out: Path,
    base: Path | None = None,
    seed: int = 0,
    recompute: Annotated[bool, Switch] = False,
    compiled: Annotated[bool, Parameter(name="--compile", negative="")] = False,
    parallel: Annotated[ParallelFlags, Parameter(name="*")] = ONE_PROCESS,
    steps: Steps = None,
    max_seconds: MaxSeconds = None,
    threads: Threads = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train the transformer on precomputed latents. It goes on where it was stopped.

    torchrun --nproc-per-node 2 -m openltx train flow ... shares the batches of a step out among processes.

    Parameters
    ----------
    recipe
        The named run: "playroom" (the bundled model, 128x128), "playroom-mixed" (many sizes and lengths).
    latents
        Folder that ``openltx data precompute`` made.
    vae
        The model file whose VAE made them; sample videos are decoded with it.
    out
        Folder of the run: checkpoints, samples, logs.
    base
        Model file whose transformer the run starts from (default: from nothing).
    seed
        Of the weights, the batches and the noise.
    recompute
        Gradient checkpointing: less memory, a third more time.
    compiled
        Compile the blocks with torch.compile; for accelerators.
    """
    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM, load_text_encoder
    from openltx.data.latents import LatentFolder
    from openltx.distributed.shard import Parallel, spread
    from openltx.recipes.flow import flow_task
    from openltx.training import loop

    chosen = flow_recipe(recipe)
    autoencoder, text = load_vae(vae, dtype=torch.float32), load_text_encoder(MINILM)
    start = base_transformer(base)
    task = flow_task(chosen, LatentFolder(latents), autoencoder, text, seed=seed, base=start)
    speed_up(task.model.transformer, recompute=recompute, compiled=compiled)
    spreading = Parallel(shard=parallel.shard, sequence=parallel.sequence, recompute=recompute)
    loop.run(
        task,
        limited(chosen.run(out, seed), steps, max_seconds, threads),
        allow_changes=allow_changes,
        distribute=lambda: spread(task.model.transformer, spreading),
        sequence=parallel.sequence,
    )


def base_transformer(base: Path | None) -> "VideoTransformer | None":
    """The transformer of a model file, in float32."""
    from openltx.checkpoints.load import load_transformer

    return None if base is None else load_transformer(base, dtype=torch.float32)


def speed_up(transformer: "VideoTransformer", *, recompute: bool, compiled: bool) -> None:
    """Trade time for memory in training, or compile the blocks in place (names of weights stay)."""
    transformer.checkpoint_blocks = recompute
    if compiled:
        for block in transformer.transformer_blocks:
            block.compile()


def flow_recipe(name: str) -> "FlowRecipe":
    """The transformer recipe of this name; RunError if there is none."""
    from openltx.recipes import playroom, playroom_mixed

    recipes = {"playroom": playroom.FLOW_RUN, "playroom-mixed": playroom_mixed.FLOW_RUN}
    if name not in recipes:
        raise RunError(f'There is no recipe "{name}" for a transformer. The recipes are: {", ".join(recipes)}.')
    return recipes[name]
