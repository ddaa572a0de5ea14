"""What all makers of clip folders do: hold the folder's lock, clean up after a killed run, write video files."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openltx.data.manifest import repair_manifest
from openltx.errors import DataError

KEYFRAME_EVERY = 8


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two runs never write one manifest; ``DataError`` if another run has it."""
    import fcntl

    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"Another run is filling {folder}. Wait for it, or choose another --out.") from error
        yield


def start_worker() -> None:
    """What a worker process does first: leave Ctrl-C to its parent, and end with it even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def clean_up(folder: Path) -> None:
    """Remove what a killed run left half written."""
    repair_manifest(folder)
    for partial in folder.glob("clips/**/*.partial.mp4"):
        partial.unlink()


def write_clip(path: Path, frames: UInt8[np.ndarray, "F H W 3"], fps: float, *, crf: int) -> None:
    """Write an MP4 in full colour resolution; a key frame every eight makes seeking quick.

    One thread encodes, so that the same frames give the same file on every number of cores.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.mp4")
    with av.open(str(partial), "w") as container:
        options = {
            "crf": str(crf),
            "preset": "superfast",
            "g": str(KEYFRAME_EVERY),
            "x264-params": "threads=1:mbtree=0:log-level=none",  # mbtree: see media.writers
        }
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)
