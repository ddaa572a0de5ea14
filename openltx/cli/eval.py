"""``openltx eval``: what the bundled model (or another one) is worth, in numbers and pictures."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from cyclopts import App, Parameter
from PIL.Image import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from openltx.checkpoints.assets import load_lpips
from openltx.checkpoints.load import BUNDLED, load_bundle, load_vae
from openltx.cli.output import open_generator
from openltx.errors import AssetError, RequestError
from openltx.eval import playroom, vae
from openltx.eval.heldout import heldout_clips
from openltx.eval.probe import examples_of, load_probe, save_probe, train
from openltx.eval.report import write_json, write_text
from openltx.models.lpips import LPIPS
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.pipelines.residency import Device, choose_device

eval_app = App(name="eval", help="Measure the VAE and the generated videos.")

VAE_DEFAULTS, PLAYROOM_DEFAULTS = vae.Settings(), playroom.Settings()
T = TypeVar("T")
Tick = Callable[[int, int], None]


@eval_app.command(name="vae")
def vae_command(
    *,
    split: Literal["heldout"] = "heldout",
    model: str = "playroom",
    data: Path | None = None,
    clips: Annotated[int, Parameter(name=["--clips", "-n"])] = 48,
    settings: Annotated[vae.Settings, Parameter(name="*")] = VAE_DEFAULTS,
    json: Path | None = None,
    out: Path = Path("outputs/eval-vae"),
    device: Device = "auto",
) -> None:
    """Reconstruct held-out clips with the VAE: PSNR, SSIM and LPIPS, and a page of pictures.

    Without --data the clips are rendered once, into the cache.

    Parameters
    ----------
    split
        Which clips; so far the held-out ones.
    model
        "playroom" (bundled), or the path of a weight file that holds a VAE.
    data
        A rendered Playroom folder to take the clips from.
    clips
        How many clips.
    json
        Where to write the report (default: report.json in the folder).
    out
        Folder for report.md, report.json and contact_sheet.png.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    network, lpips = load_autoencoder(model, device), load_lpips_or_say_how()
    with progress("Rendering") as tick:
        folder, chosen = heldout_clips(clips, data=data, seed=settings.seed, progress=tick)
    with progress("Reconstructing") as tick:
        results = vae.evaluate(network, folder, chosen, settings, lpips, tick)
    report = {"split": split, **vae.summarise(results, settings, model)}
    publish(report, vae.to_markdown(report), {"contact_sheet.png": vae.sheet(results)}, out, json)


@eval_app.command(name="playroom")
def playroom_command(
    *,
    prompts: int = 200,
    model: str = "playroom",
    data: Path | None = None,
    image_to_video: int = 0,
    settings: Annotated[playroom.Settings, Parameter(name="*")] = PLAYROOM_DEFAULTS,
    json: Path | None = None,
    out: Path = Path("outputs/eval-playroom"),
    device: Device = "auto",
) -> None:
    """Generate from held-out captions and judge colour, motion and shape, beside the real clips of the same scenes.

    Without --data the clips are rendered once, into the cache.

    Parameters
    ----------
    prompts
        How many captions; 0 for none.
    model
        "playroom" (bundled), or the path of a weight file.
    data
        A rendered Playroom folder to take the scenes from.
    image_to_video
        Also generate from so many held-out first frames.
    json
        Where to write the report (default: report.json in the folder).
    out
        Folder for the report, the contact sheets and the videos.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    if max(prompts, image_to_video) < 1:
        raise RequestError("Nothing to measure: ask for --prompts or --image-to-video of at least 1.")
    probe, generator = load_probe(), open_generator(model, device)
    make = playroom.maker(generator, settings, out / "videos")
    with progress("Rendering") as tick:
        folder, chosen = heldout_clips(max(prompts, image_to_video), data=data, seed=settings.seed, progress=tick)
    with progress("From text") as tick:
        trials = counted(playroom.text_trials(make, probe, folder, chosen[:prompts]), prompts, tick)
    with progress("From an image") as tick, tempfile.TemporaryDirectory() as pictures:
        found = playroom.image_trials(make, probe, folder, chosen[:image_to_video], Path(pictures))
        images = counted(found, image_to_video, tick)
    report: dict[str, Any] = {"model": model, "fingerprint": generator.model.fingerprint, **asdict(settings)}
    report |= playroom.summarise(trials, images)
    sheets = {"contact_sheet.png": playroom.text_sheet(trials)} if trials else {}
    if images:
        sheets["contact_sheet_images.png"] = playroom.image_sheet(images)
    publish(report, playroom.to_markdown(report), sheets, out, json)


@eval_app.command(name="train-probe")
def train_probe_command(
    *,
    data: Path,
    out: Path,
    clips: int = 3000,
    frames_per_clip: int = 3,
    steps: int = 1600,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Train the probe, which finds solids and names their shapes, on rendered frames.

    Parameters
    ----------
    data
        A rendered Playroom folder; its training clips are used.
    out
        The safetensors file to write.
    clips
        How many clips.
    frames_per_clip
        Frames of each.
    steps
        Training steps, of 24 frames.
    seed
        Of the choice of frames, the start and the augmentation.
    threads
        CPU threads.
    """
    if steps < 1:
        raise RequestError(f"A probe needs at least one step; {steps} were asked for.")
    torch.set_num_threads(threads)
    examples = list(examples_of(data, clips=clips, frames_per_clip=frames_per_clip, seed=seed))
    say(f"{len(examples)} frames")
    with progress("Training") as tick:
        for step, loss, probe in train(examples, steps=steps, seed=seed):
            tick(step, steps)
            if step % 200 == 0:
                say(f"step {step}  loss {loss:.3f}")
            if step == steps:
                save_probe(probe, out)
    say(f"{out}  {out.stat().st_size / 1e6:.2f} MB")


def load_autoencoder(model: str, device: Device) -> VideoAutoencoder:
    """The VAE of a named model or of a weight file."""
    place = choose_device(device)
    if model in BUNDLED:
        return load_bundle(model, dtype=torch.float32, device=place).vae
    return load_vae(model, dtype=torch.float32, device=place)


def load_lpips_or_say_how() -> LPIPS | None:
    """LPIPS if its weights are here, else None after a line that says how to get them."""
    try:
        return load_lpips("alex")
    except AssetError as error:
        say(f"Without LPIPS. {error}")
        return None


def counted(items: Iterator[T], total: int, tick: Tick) -> list[T]:
    """All items, with a tick for each."""
    found = []
    for item in items:
        found.append(item)
        tick(len(found), total)
    return found


@contextlib.contextmanager
def progress(what: str) -> Iterator[Tick]:
    """A bar on stderr that appears with its first tick."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = []

        def tick(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task(what, total=total))
            bar.update(tasks[0], completed=done, total=total)

        yield tick


def publish(report: dict[str, Any], text: str, pictures: dict[str, Image], out: Path, json: Path | None) -> None:
    """Print the report, and write it with its pictures."""
    print(text)
    json = json or out / "report.json"
    write_text(out / "report.md", text)
    write_json(json, report)
    for name, picture in pictures.items():
        save_picture(picture, out / name)
    say(f"{out}  report.md, {', '.join(pictures)}; {json}")


def save_picture(picture: Image, path: Path) -> None:
    """Write a PNG atomically."""
    partial = path.with_suffix(".tmp")
    picture.save(partial, format="PNG")
    partial.replace(path)


def say(line: str) -> None:
    """Print one line as it is."""
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
