"""Fill a folder with Playroom clips: several processes, resumable, the same files whatever the number of workers."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from openltx.data.filling import clean_up, sole_user, start_worker, write_clip
from openltx.data.manifest import (
    MANIFEST,
    WORLD,
    Clip,
    append_clip,
    read_manifest,
    read_world,
    write_world,
)
from openltx.data.worlds.playroom import captions
from openltx.data.worlds.playroom.clip import FPS, caption_rng, draw, perform, split_of, truth_of
from openltx.data.worlds.playroom.formats import CLASSIC, Format, format_of
from openltx.data.worlds.playroom.render import Renderer
from openltx.data.worlds.playroom.scene import BACKDROPS, FLOORS, PALETTE, SHAPES
from openltx.data.worlds.playroom.split import HELDOUT_COMBINATIONS, HELDOUT_SHARE
from openltx.errors import DataError

VERSION = 1
SIZE = 128
CRF = 8


def generate(
    out: Path | str,
    *,
    clips: int,
    seed: int,
    formats: tuple[Format, ...] = CLASSIC,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Clip]:
    """Make clips 0 .. ``clips`` - 1 of the world with this seed in folder ``out``, and its manifest.

    Each clip has one of the ``formats``. Clips that the manifest already names are kept. ``progress(done, total)`` is
    called after every clip. Raises ``DataError`` if the folder holds another seed, other formats or another version of
    the world.
    """
    folder = Path(out)
    if clips < 1 or workers < 1:
        raise DataError(f"A world needs at least one clip and one worker; asked for {clips} and {workers}.")
    folder.mkdir(parents=True, exist_ok=True)
    with sole_user(folder):
        return _fill(folder, clips, seed, formats, workers, progress or (lambda *_: None))


def _fill(
    folder: Path,
    clips: int,
    seed: int,
    formats: tuple[Format, ...],
    workers: int,
    progress: Callable[[int, int], None],
) -> list[Clip]:
    _check_folder(folder, seed, formats)
    clean_up(folder)
    done = {clip.truth["scene"] for clip in read_manifest(folder)} if (folder / MANIFEST).exists() else set()
    missing = [index for index in range(clips) if index not in done]
    write_world(folder, describe(seed, max(clips, len(done)), formats))
    finished = clips - len(missing)
    progress(finished, clips)
    with _results(folder, seed, formats, missing, workers) as results:
        for clip in results:
            append_clip(folder, clip)
            finished += 1
            progress(finished, clips)
    return read_manifest(folder)


def make_clip(folder: Path, seed: int, index: int, renderer: Renderer, formats: tuple[Format, ...] = CLASSIC) -> Clip:
    """Make one clip's video file in the folder (atomically) and return its line for the manifest."""
    width, height, length = format_of(formats, seed, index)
    renderer.resize((width, height))
    performance = perform(seed, index, renderer.size, length)
    frames = draw(performance, renderer)
    path = f"clips/{index // 1000:03d}/{index:06d}.mp4"
    write_clip(folder / path, frames, float(FPS), crf=CRF)
    truth = truth_of(performance, seed, index)
    rng = caption_rng(seed, index)
    return Clip(
        path=path,
        frames=len(frames),
        height=height,
        width=width,
        fps=float(FPS),
        caption=captions.phrase(truth, rng),
        split=split_of(seed, index, performance.scene),
        truth=truth,
    )


def describe(seed: int, clips: int, formats: tuple[Format, ...] = CLASSIC) -> dict[str, Any]:
    """What ``world.json`` says."""
    return {
        **({} if formats == CLASSIC else {"formats": [str(one) for one in formats]}),
        "world": "playroom",
        "version": VERSION,
        "seed": seed,
        "clips": clips,
        "size": SIZE,
        "fps": FPS,
        "heldout_share": HELDOUT_SHARE,
        "heldout_combinations": [list(c) for c in HELDOUT_COMBINATIONS],
        "palette": {name: list(rgb) for name, rgb in PALETTE.items()},
        "shapes": list(SHAPES),
        "floors": list(FLOORS),
        "backdrops": list(BACKDROPS),
    }


def _check_folder(folder: Path, seed: int, formats: tuple[Format, ...]) -> None:
    if not (folder / WORLD).exists():
        return
    world = read_world(folder)
    if (world.get("world"), world.get("version"), world.get("seed")) != ("playroom", VERSION, seed):
        raise DataError(
            f"{folder} holds the world {world.get('world')} version {world.get('version')} with seed "
            f"{world.get('seed')}, not playroom version {VERSION} with seed {seed}. Choose another --out."
        )
    if world.get("formats") != describe(seed, 0, formats).get("formats"):
        raise DataError(f"{folder} holds clips of other formats than those asked for. Choose another --out.")


@contextmanager
def _results(
    folder: Path, seed: int, formats: tuple[Format, ...], indices: list[int], workers: int
) -> Iterator[Iterator[Clip]]:
    """The clips in the order of their indices, whoever makes them."""
    jobs = [(folder, seed, index, formats) for index in indices]
    if workers == 1 or not jobs:
        yield map(_work, jobs)
        return
    os.environ.setdefault("LP_NUM_THREADS", "1")
    with multiprocessing.get_context("spawn").Pool(workers, start_worker) as pool:
        yield pool.imap(_work, jobs, chunksize=4)


def _work(job: tuple[Path, int, int, tuple[Format, ...]]) -> Clip:
    folder, seed, index, formats = job
    return make_clip(folder, seed, index, _renderer(), formats)


@cache
def _renderer() -> Renderer:
    """The one renderer of this process."""
    return Renderer(SIZE)
