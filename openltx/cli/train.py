"""``openltx train``: the four steps from clips to a model file. Each resumes where it was stopped."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from cyclopts import App, Parameter

from openltx.errors import RunError

if TYPE_CHECKING:
    from openltx.training.config import RunConfig

train_app = App(name="train", help="Train the Video-VAE or the transformer.")

MaxSeconds = Annotated[float | None, Parameter(help="Stop with a checkpoint after this many seconds.")]
Threads = Annotated[int | None, Parameter(help="CPU threads (default: torch's choice).")]
Steps = Annotated[int | None, Parameter(help="Stop after this many steps in all (default: the recipe's).")]
AllowChanges = Annotated[bool, Parameter(help="Resume although settings of the run have changed.", negative="")]


@train_app.command
def vae(
    recipe: str,
    *,
    data: Path,
    out: Path,
    steps: Steps = None,
    max_seconds: MaxSeconds = None,
    threads: Threads = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train a Video-VAE on the clips of a folder.

    Parameters
    ----------
    recipe
        The named run; so far "playroom".
    data
        Clip folder with a manifest, as ``openltx data world`` makes it.
    out
        Folder of the run: checkpoints, samples, logs.
    """
    from openltx.checkpoints.assets import load_lpips
    from openltx.data.datasets import ClipBatches, clips_of, read_clip
    from openltx.media.transforms import to_tensor
    from openltx.recipes import playroom
    from openltx.training import loop
    from openltx.training.vae import VAETask, new_autoencoder

    _require_recipe(recipe)
    heldout = [to_tensor(read_clip(data, clip)[:25]) for clip in clips_of(data, "heldout")[:6]]
    config = _limited(playroom.vae_run(out), steps, max_seconds, threads)
    task = VAETask(
        model=new_autoencoder(playroom.VAE, config.seed),
        data=ClipBatches(data, playroom.VAE_STAGES, seed=config.seed),
        heldout=heldout,
        losses=playroom.VAE_LOSSES,
        optim=playroom.VAE_OPTIM,
        perceptual=load_lpips("vgg") if playroom.VAE_LOSSES.lpips else None,
    )
    loop.run(task, config, allow_changes=allow_changes)


@train_app.command
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

    _require_recipe(recipe)
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


@train_app.command
def flow(
    recipe: str,
    *,
    latents: Path,
    vae: Path,
    out: Path,
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
    """
    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM, load_text_encoder
    from openltx.data.precompute import read_examples
    from openltx.models.bundle import LTXModel
    from openltx.models.transformer import VideoTransformer, init_weights
    from openltx.recipes import playroom
    from openltx.training import loop
    from openltx.training.flow import FlowTask, inference_schedule

    _require_recipe(recipe)
    config = _limited(playroom.flow_run(out), steps, max_seconds, threads)
    transformer = VideoTransformer(playroom.TRANSFORMER)
    init_weights(transformer, torch.Generator().manual_seed(config.seed))
    model = LTXModel(
        name=recipe,
        transformer=transformer,
        vae=load_vae(vae, dtype=torch.float32),
        text=load_text_encoder(MINILM),
        schedule=inference_schedule(playroom.FLOW),
        sampling=playroom.SAMPLING,
    )
    task = FlowTask(model, read_examples(latents), playroom.FLOW, playroom.FLOW_OPTIM, playroom.SAMPLE_PROMPTS)
    loop.run(task, config, allow_changes=allow_changes)


@train_app.command
def export(
    recipe: str,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    *,
    vae_run: Path | None = None,
    vae: Path | None = None,
    flow_run: Path | None = None,
) -> None:
    """Write trained weights as one model file in the official layout.

    Parameters
    ----------
    recipe
        The named run; so far "playroom".
    output
        The .safetensors file to write.
    vae_run
        Run folder of ``openltx train vae``.
    vae
        Model file to take the VAE from instead.
    flow_run
        Run folder of ``openltx train flow``; without it the file holds the VAE only.
    """
    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM
    from openltx.recipes import playroom
    from openltx.training.export import export as write
    from openltx.training.export import trained_transformer, trained_vae
    from openltx.training.flow import inference_schedule

    _require_recipe(recipe)
    if (vae_run is None) == (vae is None):
        raise RunError("Say where the VAE comes from: either --vae-run RUN or --vae FILE.")
    autoencoder = load_vae(vae) if vae is not None else trained_vae(vae_run or Path(), playroom.VAE)
    transformer = trained_transformer(flow_run, playroom.TRANSFORMER) if flow_run is not None else None
    write(
        output,
        transformer,
        autoencoder,
        schedule=inference_schedule(playroom.FLOW),
        sampling=playroom.SAMPLING,
        text_encoder=MINILM,
        world="playroom",
    )
    print(output)


def _limited(config: "RunConfig", steps: int | None, max_seconds: float | None, threads: int | None) -> "RunConfig":
    return dataclasses.replace(config, steps=steps or config.steps, max_seconds=max_seconds, threads=threads)


def _require_recipe(name: str) -> None:
    if name != "playroom":
        raise RunError(f'There is no recipe "{name}". The recipes are: playroom.')
