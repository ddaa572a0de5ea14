"""``openltx eval latents``: how evenly VAEs use their latent channels."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from torch import Tensor

from openltx.cli.eval.networks import load_autoencoder
from openltx.cli.eval.output import Tick, progress, publish
from openltx.data.manifest import Clip, Split
from openltx.errors import RunError
from openltx.eval.clips import clips_to_measure, read_on_grid
from openltx.eval.latent_plots import correlation_matrices, explained_variance
from openltx.eval.latents import channel_use, describe, to_markdown
from openltx.media.transforms import to_tensor
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.pipelines.residency import Device, choose_device
from openltx.training.export import trained_vae
from openltx.training.state import list_checkpoints

Source = tuple[str, Callable[[Device], VideoAutoencoder]]
"""A name, and what loads the VAE."""


def latents_command(
    *,
    checkpoints: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    data: Path | None = None,
    split: Split = "heldout",
    clips: Annotated[int, Parameter(name=["--clips", "-n"])] = 128,
    frames: int | None = None,
    seed: int = 0,
    out: Path = Path("outputs/eval-latents"),
    device: Device = "auto",
) -> None:
    """Compare VAEs by the redundancy of their latents (paper, figure 3): PCA and correlations of the channels.

    Without --data, held-out Playroom clips are rendered once, into the cache.

    Parameters
    ----------
    checkpoints
        What to compare, in this order: weight files that hold a VAE, "playroom" (bundled), folders of
        ``openltx train vae`` (all checkpoints in it), or single checkpoints of such a folder.
    data
        A folder with a manifest to take the clips from.
    split
        Which clips of the folder.
    clips
        How many clips.
    frames
        At most so many frames of each.
    seed
        Of the choice of clips.
    out
        Folder for report.md, report.json, explained_variance.png and correlation.png.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    sources = [source for asked in checkpoints for source in sources_of(asked)]
    with progress("Rendering") as tick:
        folder, chosen = clips_to_measure(clips, split=split, data=data, seed=seed, progress=tick)
    uses = []
    for name, load in sources:
        vae = load(device)
        with progress(f"Encoding with {name}") as tick:
            uses.append(channel_use(name, vae, videos(vae, folder, chosen, frames, tick)))
    report = {
        "clips": clips,
        "split": split,
        "data": None if data is None else str(data),
        "frames": frames,
        "seed": seed,
        "checkpoints": [describe(use) for use in uses],
    }
    pictures = {"explained_variance.png": explained_variance(uses), "correlation.png": correlation_matrices(uses)}
    publish(report, to_markdown(report), pictures, out)


def sources_of(asked: str) -> list[Source]:
    """The VAEs behind one argument: several for the folder of a run. RunError for a run without checkpoints."""
    path = Path(asked)
    if (path / "state.json").is_file():
        return [_checkpoint(path)]
    if (path / "run.json").is_file():
        found = list_checkpoints(path)
        if not found:
            raise RunError(f"The run {path} holds no checkpoint yet. Wait for its first one, or name another.")
        return [_checkpoint(folder) for folder in found]
    return [(path.stem, partial(load_autoencoder, asked))]


def videos(vae: VideoAutoencoder, folder: Path, clips: list[Clip], frames: int | None, tick: Tick) -> Iterator[Tensor]:
    """The clips in [-1, 1], cut to the VAE's grid, with a tick for each."""
    for done, clip in enumerate(clips, start=1):
        yield to_tensor(read_on_grid(folder / clip.path, frames, vae.config.compression))
        tick(done, len(clips))


def _checkpoint(folder: Path) -> Source:
    """Named by its run and step: ``vae step_00003000``."""
    run = folder.resolve().parent.parent.name
    return f"{run} {folder.name}", lambda device: trained_vae(folder).to(choose_device(device))
