"""``openltx eval vae``: how well a VAE reconstructs clips."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.eval.networks import load_autoencoder, load_networks
from openltx.cli.eval.output import progress, publish
from openltx.cli.output import say
from openltx.data.manifest import Split
from openltx.eval import vae, vae_pictures, vae_report
from openltx.eval.clips import clips_to_measure
from openltx.pipelines.residency import Device

SHEET_ROWS = 8
DEFAULTS = vae.Settings()


def vae_command(
    *,
    split: Split = "heldout",
    model: str = "playroom",
    data: Path | None = None,
    clips: Annotated[int, Parameter(name=["--clips", "-n"])] = 48,
    settings: Annotated[vae.Settings, Parameter(name="*", consume_multiple=True, negative_iterable="")] = DEFAULTS,
    baseline: Annotated[bool, Parameter(negative="")] = False,
    videos: int = 4,
    json: Path | None = None,
    out: Path = Path("outputs/eval-vae"),
    device: Device = "auto",
) -> None:
    """Reconstruct clips with the VAE: PSNR, SSIM, LPIPS, flicker, motion and Frechet distance; pictures and videos.

    Without --data, held-out Playroom clips are rendered once, into the cache.

    Parameters
    ----------
    split
        Which clips of the folder.
    model
        "playroom" (bundled), or the path of a weight file that holds a VAE.
    data
        A folder with a manifest to take the clips from.
    clips
        How many clips.
    baseline
        Also measure the best bicubic copy that keeps as many numbers as the latents.
    videos
        How many clips to show as MP4: original, reconstruction and difference side by side.
    json
        Where to write the report (default: report.json in the folder).
    out
        Folder for report.md, report.json, contact_sheet.png and videos/.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    network = load_autoencoder(model, device)
    vae.levels_of(network.config, settings)  # a mistake in them is told before minutes of work
    networks = load_networks()
    with progress("Rendering") as tick:
        folder, chosen = clips_to_measure(clips, split=split, data=data, seed=settings.seed, progress=tick)
    downsampling = None
    if baseline:
        with progress("Searching the baseline") as tick:
            downsampling = vae.search_downsampling(network.config, folder, chosen, settings, tick)
    with progress("Reconstructing") as tick:
        found = vae.evaluate(network, folder, chosen, settings, networks, downsampling=downsampling, progress=tick)
    made = vae_pictures.reconstructions(network, folder, found, settings, max(SHEET_ROWS, videos))
    report = {
        "split": split,
        "data": None if data is None else str(data),
        **vae_report.summarise(found, settings, model),
    }
    publish(
        report, vae_report.to_markdown(report), {"contact_sheet.png": vae_pictures.sheet(made[:SHEET_ROWS])}, out, json
    )
    if videos:
        paths = vae_pictures.write_videos(made[:videos], out / "videos")
        say(f"{out / 'videos'}  {len(paths)} videos")
