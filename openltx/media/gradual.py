"""Frames to a file as they come: of an .mp4, few of them are in memory; other formats are collected first."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openltx.media.io import write_video
from openltx.media.writers import VideoWriter, require_writable


def write_gradually(
    path: Path,
    pieces: Iterable[UInt8[np.ndarray, "_ H W 3"]],
    fps: float,
    metadata: Callable[[], Mapping[str, str]],
) -> list[Path]:
    """Write the frames of all ``pieces``; gives the files written, as ``write_video`` does.

    ``metadata`` is asked in the end (and, for its length, at the start). Raises ``MediaError``; then, and if a piece
    cannot be made, nothing is left behind.
    """
    if require_writable(path) != ".mp4":
        return write_video(path, np.concatenate(list(pieces)), fps, metadata())
    with VideoWriter(path, fps, metadata) as writer:
        for frames in pieces:
            writer.write(frames)
    return [path]
