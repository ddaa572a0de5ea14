"""A video file frame by frame: however long it is, one frame of it is in memory.

Frames come as they are meant to be seen: turned as a phone's file says, with square pixels.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from openltx.errors import MediaError
from openltx.media.io import open_stream


def stream_video(
    path: str | Path,
    wanted: Callable[[int], bool] = lambda _: True,
    *,
    max_width: int | None = None,
    container_format: str | None = None,
) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"] | None]]:
    """Every frame of a video as (index, frame), in order; None in place of a frame that is not ``wanted``.

    With ``max_width`` the stored picture is first reduced to at most so many pixels across, by averaging: quick, for
    looking at what happens. ``container_format`` is as in ``open_stream``. Raises ``MediaError``, at the frame where it
    shows, if the file is missing, damaged or cut short.
    """
    num_packets, index = 0, 0
    with open_stream(path, container_format) as (container, stream):
        stream.thread_type = "AUTO"
        options = _scaling(stream, max_width)
        for packet in container.demux(stream):
            num_packets += packet.size > 0
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise MediaError(f"{path} is damaged: frame {index} cannot be decoded whole.")
                yield index, _upright(frame, options) if wanted(index) else None
                index += 1
        if num_packets < stream.frames:
            raise MediaError(f"{path} is cut short: it has {num_packets} of the {stream.frames} frames it announces.")


def _scaling(stream: Any, max_width: int | None) -> dict[str, Any]:
    """The size that PyAV is to give every frame, and how."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width, height = stream.width * aspect, stream.height
    scale = min(1.0, max_width / width) if max_width else 1.0
    return {
        "width": max(round(width * scale), 1),
        "height": max(round(height * scale), 1),
        "interpolation": "AREA" if scale < 1 else "BICUBIC",
    }


def _upright(frame: Any, options: dict[str, Any]) -> UInt8[np.ndarray, "H W 3"]:
    pixels = frame.to_ndarray(format="rgb24", **options)
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
