"""Clips to measure on: drawn from a folder with a manifest, or held-out Playroom clips, rendered once into the cache.

The clips of the cache belong to a world of their own seed, so that no training set holds them, and to its held-out
split: that holds the combinations of colour, shape and event that no training set shows. They are made in the order of
their indices, so a small evaluation uses the first clips of a large one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openltx.cache import cache_folder
from openltx.data.manifest import Clip, Split, append_clip, read_manifest, repair_manifest, write_world
from openltx.errors import DataError
from openltx.media.io import read_video
from openltx.media.transforms import crop_to

FIRST_WORLD = 90_000  # seed s of an evaluation is the world of seed FIRST_WORLD + s

Progress = Callable[[int, int], None]


def clips_to_measure(
    count: int,
    *,
    split: Split = "heldout",
    data: Path | None = None,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> tuple[Path, list[Clip]]:
    """A folder and ``count`` of its clips.

    ``data`` is a folder with a manifest, from whose ``split`` the ``seed`` draws; without it held-out clips are
    rendered into the cache. Raises DataError where there are not enough, or none can be rendered.
    """
    if count < 1:
        raise DataError(f"An evaluation needs at least one clip; {count} were asked for.")
    if data is None:
        if split != "heldout":
            raise DataError(
                f'Clips of the split "{split}" were asked for, and no folder to take them from. Name the folder with '
                "--data; only held-out clips are rendered without one."
            )
        return rendered(count, seed, progress)
    clips = read_manifest(data, split)
    if len(clips) < count:
        kind = "held-out" if split == "heldout" else "training"
        raise DataError(
            f"{data} has {len(clips)} {kind} clips, {count} were asked for. Ask for fewer"
            f"{', or leave the folder out: the clips are then rendered' if split == 'heldout' else ''}."
        )
    chosen = np.random.default_rng(seed).permutation(len(clips))[:count]
    return data, [clips[i] for i in sorted(chosen)]


def read_on_grid(path: Path, frames: int | None, compression: tuple[int, int]) -> UInt8[np.ndarray, "F H W 3"]:
    """A clip's frames, cut to what a VAE of this (time, space) ``compression`` can encode whole.

    The first frames are kept, as many as the grid (and ``frames``) allows: 1, 9, 17, ... at a time factor of 8. Rows
    and columns are cut at the edges to multiples of the space factor; DataError for a clip that is smaller than one.
    """
    time, space = compression
    video, _ = read_video(path)
    available = len(video) if frames is None else min(frames, len(video))
    height, width = (side // space * space for side in video.shape[1:3])
    if min(height, width, available) < 1:
        raise DataError(
            f"{path} has {len(video)} frames of {video.shape[2]}x{video.shape[1]}; the VAE needs at least one frame of "
            f"{space}x{space}. Leave the clip out, or ask for more frames."
        )
    return crop_to(video[: (available - 1) // time * time + 1], height, width)


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
