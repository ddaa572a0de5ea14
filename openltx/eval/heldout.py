"""Held-out Playroom clips to measure on: from a rendered folder, or rendered once into the cache.

The clips of the cache belong to a world of their own seed, so that no training set holds them, and to its held-out
split: that holds the combinations of colour, shape and event that no training set shows. They are made in the order of
their indices, so a small evaluation uses the first clips of a large one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from openltx.cache import cache_folder
from openltx.data.manifest import Clip, append_clip, read_manifest, repair_manifest, write_world
from openltx.errors import DataError

FIRST_WORLD = 90_000  # seed s of an evaluation is the world of seed FIRST_WORLD + s

Progress = Callable[[int, int], None]


def heldout_clips(
    count: int, *, data: Path | None = None, seed: int = 0, progress: Progress = lambda *_: None
) -> tuple[Path, list[Clip]]:
    """A folder and ``count`` of its held-out clips.

    ``data`` is a rendered folder, from which ``seed`` draws; without it the clips are rendered into the cache.
    Raises DataError where there are not enough.
    """
    if count < 1:
        raise DataError(f"An evaluation needs at least one clip; {count} were asked for.")
    if data is None:
        return rendered(count, seed, progress)
    clips = read_manifest(data, "heldout")
    if len(clips) < count:
        raise DataError(
            f"{data} has {len(clips)} held-out clips, {count} were asked for. Ask for fewer, or leave the folder out: "
            "the clips are then rendered."
        )
    chosen = np.random.default_rng(seed).permutation(len(clips))[:count]
    return data, [clips[i] for i in sorted(chosen)]


def rendered(count: int, seed: int, progress: Progress) -> tuple[Path, list[Clip]]:
    """The first ``count`` held-out clips of the evaluation world ``seed``; those not in the cache yet are rendered."""
    from openltx.data.worlds.playroom.generate import SIZE, VERSION, describe, make_clip
    from openltx.data.worlds.playroom.render import Renderer

    world = FIRST_WORLD + seed
    folder = cache_folder() / "eval" / f"playroom-v{VERSION}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    repair_manifest(folder)
    clips = read_manifest(folder) if (folder / "manifest.jsonl").exists() else []
    if len(clips) >= count:
        return folder, clips[:count]
    write_world(folder, describe(world, count))
    renderer = Renderer(SIZE)
    for index in candidates(world, start=clips[-1].truth["scene"] + 1 if clips else 0):
        clip = make_clip(folder, world, index, renderer)
        if clip.split != "heldout":  # its first proposed scene could not be played, and another took its place
            continue
        append_clip(folder, clip)
        clips.append(clip)
        progress(len(clips), count)
        if len(clips) == count:
            break
    return folder, clips


def candidates(world: int, start: int) -> Iterator[int]:
    """Indices from ``start`` on whose first proposed scene is held out, without simulating them."""
    from openltx.data.worlds.playroom.scene import sample_scene
    from openltx.data.worlds.playroom.split import split_of

    index = start
    while True:
        if split_of(world, index, sample_scene(np.random.default_rng([world, index, 0]))) == "heldout":
            yield index
        index += 1
