"""``openltx data``: render worlds or cut videos to learn from, encode them, and look at clip folders."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from PIL.Image import Image
from rich.console import Console
from rich.progress import TaskID

from openltx.data.manifest import Clip, read_manifest
from openltx.errors import AssetError, DataError, MediaError

data_app = App(name="data", help="Render worlds or cut videos to learn from, and look at data sets.")
world_app = App(name="world", help="Fill a folder with captioned clips of a procedural world.")
data_app.command(world_app)
for _name in ("probe", "scenes", "prepare", "rate", "rank"):
    data_app.command(f"openltx.cli.prepare:{_name}", name=_name)


@world_app.command
def playroom(
    *,
    clips: Annotated[int, Parameter(name=["--clips", "-n"])],
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    seed: int = 0,
    workers: Annotated[int, Parameter(name=["--workers", "-w"])] = 2,
    formats: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
) -> None:
    """Render Playroom: balls, cubes, cylinders, capsules and cones that fall, roll, slide, topple, collide and swing.

    24 frames a second; 128x128 pixels and 25 to 49 frames a clip, if no other formats are asked for. Run it again to go
    on after an interruption, or with more clips to add some: what is there is kept. The same seed gives the same clips,
    whatever the number of workers.

    Parameters
    ----------
    clips
        How many clips the folder shall hold in the end.
    out
        The folder: MP4 files, manifest.jsonl (caption and truth of each clip), world.json.
    seed
        Which of the endless worlds.
    workers
        Processes that simulate, draw and encode, one core each.
    formats
        Sizes and lengths, of which each clip has one: WIDTHxHEIGHTxFRAMES ..., or "mixed" (96x96x97 to 192x128x25, what
        the bundled model learns from), "unseen" (others to judge it by), "classic".
    """
    from openltx.data.worlds.playroom import generate
    from openltx.data.worlds.playroom.formats import parse_formats

    chosen = parse_formats(formats or ["classic"])
    with bar("Rendering") as progress:
        made = generate(out, clips=clips, seed=seed, formats=chosen, workers=workers, progress=progress)
    _say(f"{out}  {_summary(made)}")


@data_app.command
def footage(
    *sources: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    size: str,
    frames: int = 49,
    min_frames: int = 25,
    fps: float | None = None,
    heldout: float = 0.1,
    seed: int = 0,
    skip_start: float = 0.0,
    skip_end: float = 0.0,
    credit: str | None = None,
) -> None:
    """Cut real videos into clips: find their shots, keep some from training, resize, and write them to a folder.

    Run it again to go on after an interruption, or with more videos to add them: what is there is kept, and no shot
    changes from training to held out or back. The videos themselves are only read. A text file beside a video,
    walk.txt for walk.mp4, becomes the caption of its clips.

    Parameters
    ----------
    sources
        Videos, folders of videos, or assets ("big-buck-bunny", see openltx assets list).
    out
        The folder: MP4 files, manifest.jsonl, world.json, sources.jsonl, rejected.jsonl.
    size
        WIDTHxHEIGHT of the clips, multiples of 32. Frames are scaled to cover it and cut at their centre.
    frames
        The most frames that a clip has.
    min_frames
        The least; shorter shots, and shorter rests of shots, are dropped.
    fps
        Leave frames out to come down to this rate (default: each video's own; slower videos keep theirs).
    heldout
        The share of shots that is kept from training.
    seed
        Chooses the shots that are held out.
    skip_start
        Seconds to leave out at the beginning of every video.
    skip_end
        Seconds to leave out at its end.
    credit
        Whom to name as the videos' author, in world.json (of assets it is known).
    """
    from openltx.data.cutting import FootageSettings
    from openltx.data.footage import cut_footage
    from openltx.pipelines.request import parse_size

    width, height = parse_size(size)
    settings = FootageSettings(
        width=width,
        height=height,
        frames=frames,
        min_frames=min_frames,
        fps=fps,
        heldout=heldout,
        seed=seed,
        skip_start=skip_start,
        skip_end=skip_end,
    )
    places = [place for source in sources for place in places_of(source)]
    with bar("Cutting") as progress:
        made = cut_footage(places, out, settings, credit=credit, progress=progress)
    short, rest = (sum(getattr(r, name) for r in made.records) for name in ("short_shots", "rest_frames"))
    _say(f"{out}  {_summary(made.clips)}")
    _say(
        f"{sum(r.shots for r in made.records)} shots, {short} too short; {rest} frames left over at the ends of others"
    )
    for name in sorted({r.credit for r in made.records if r.credit}):
        _say(f"credit: {name}")
    for rejection in made.rejected:
        _say(f"not used: {rejection.source}: {rejection.reason}")


@data_app.command
def precompute(  # noqa: PLR0913 (a flag each)
    source: Path,
    *,
    vae: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    recipe: str = "playroom",
    split: Literal["train", "heldout"] = "train",
    limit: int | None = None,
    phrasings: int | None = None,
    mirrored: bool | None = None,
    stills: int | None = None,
    ending: int | None = None,
    patch: int | None = None,
) -> None:
    """Encode clips and captions once, for the transformer's training: latents and token states in shards.

    Run it again to go on after an interruption, or when clips were added. Latents of other weights, with other settings
    or of other clips are refused.

    Parameters
    ----------
    source
        Clip folder with a manifest.
    vae
        Model file whose VAE encodes (see ``openltx train export``).
    out
        Folder of the latents.
    recipe
        The named run of ``openltx train flow`` that they are for; it says what is needed of each clip.
    split
        Clips to train on, or those held out.
    limit
        Take only so many clips.
    phrasings
        Captions for each clip, instead of the recipe's number.
    mirrored
        Keep each clip's mirror image too, with left and right exchanged in its captions.
    stills
        Single frames of each clip, encoded by themselves: pictures to train on, and keyframes.
    ending
        Latent frames of each clip's end, encoded as a clip of their own: endings that are given.
    patch
        Fold squares of so many latents into one token, for a VAE that compresses less.
    """
    from dataclasses import replace

    import torch

    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM, load_text_encoder
    from openltx.cli.train.flow import flow_recipe
    from openltx.data.precompute import precompute as encode
    from openltx.kernels.volume import lay_out_kernels
    from openltx.pipelines.residency import fast_dtype

    wishes = {"phrasings": phrasings, "mirrored": mirrored, "stills": stills, "ending": ending, "patch": patch}
    settings = replace(flow_recipe(recipe).latents, **{k: value for k, value in wishes.items() if value is not None})
    encoder = load_vae(vae, dtype=fast_dtype(torch.device("cpu")))
    lay_out_kernels(encoder)
    text = load_text_encoder(MINILM)
    with bar("Encoding") as progress:
        encode(source, out, encoder, text, split=split, settings=settings, limit=limit, progress=progress)
    _say(str(out))


@data_app.command
def show(
    folder: Path,
    *,
    clips: Annotated[int, Parameter(name=["--clips", "-n"])] = 24,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    split: Literal["train", "heldout"] | None = None,
    columns: int = 8,
) -> None:
    """Write a contact sheet of a clip folder: a row of frames for each clip, its caption above.

    Parameters
    ----------
    folder
        A folder with a manifest.
    clips
        How many clips, evenly spaced over the folder.
    out
        The PNG file (default: contact_sheet.png in the folder).
    split
        Only clips of this split.
    columns
        Frames a clip.
    """
    from openltx.media.contact_sheet import contact_sheet, evenly_spaced
    from openltx.media.io import read_video

    found = read_manifest(folder, split)
    if not found or clips < 1 or columns < 1:
        raise DataError(
            f"Nothing to show: {folder} has {len(found)} clips{f' in split {split}' if split else ''}; "
            f"asked for {clips} clips with {columns} frames each."
        )
    chosen = [found[i] for i in evenly_spaced(len(found), clips)]
    page = contact_sheet(
        [(clip.caption or clip.path, read_video(folder / clip.path)[0]) for clip in chosen], columns=columns
    )
    target = out or folder / "contact_sheet.png"
    _save_png(page, target)
    _say(f"{target}  {len(chosen)} of {_summary(found)}")


def places_of(source: str) -> list[Path]:
    """A path as it is, or the files of an asset."""
    from openltx.checkpoints.assets import ASSETS

    if source not in ASSETS or Path(source).exists():
        return [Path(source)]
    if not ASSETS[source].is_present:
        raise AssetError(f"The asset {source} is not here yet. Run: openltx assets pull {source}")
    return list(ASSETS[source].files.values())


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left, as a function of (done, total)."""
    with bars() as tell:
        yield lambda done, total: tell(title, done, total)


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each title that is told of, as a function of (title, done, total)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        *(TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as shown:

        def tell(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = shown.add_task(title, total=total)
            shown.update(tasks[title], completed=done, total=total)

        yield tell


def _save_png(page: Image, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        page.save(partial, format="PNG")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MediaError(f"Cannot write {target}: {error.strerror or error}. Give another place with --out.") from error


def _summary(clips: list[Clip]) -> str:
    frames = sum(clip.frames for clip in clips)
    heldout = sum(clip.split == "heldout" for clip in clips)
    return f"{len(clips)} clips, {frames} frames, {heldout} clips held out"


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
