"""A video file frame by frame: however long it is, a few frames of it are in memory.

Frames come as they are meant to be seen: turned as a phone's file says, with square pixels.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from openltx.errors import MediaError
from openltx.media.io import open_stream

T = TypeVar("T")
AHEAD = 4  # pictures that are decoded before they are asked for


@dataclass(frozen=True)
class Picture:
    """A decoded frame that becomes pixels when asked to.

    ``width`` and ``height`` are those of the video with square pixels, before it is turned; ``pts`` is the frame's time
    in the stream's own unit, if it has one.
    """

    frame: Any
    width: float
    height: int
    pts: int | None

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width as the frame is meant to be seen."""
        height, width = max(self.height, 1), max(round(self.width), 1)
        return (width, height) if round(self.frame.rotation / 90) % 2 else (height, width)

    def pixels(self, max_width: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """The frame in RGB. With ``max_width`` the stored picture is first reduced to at most so many pixels across, by
        averaging: quick, for looking at what happens."""
        scale = min(1.0, max_width / self.width) if max_width else 1.0
        pixels = self.frame.to_ndarray(
            format="rgb24",
            width=max(round(self.width * scale), 1),
            height=max(round(self.height * scale), 1),
            interpolation="AREA" if scale < 1 else "BICUBIC",
        )
        return np.ascontiguousarray(np.rot90(pixels, round(self.frame.rotation / 90)))


def stream_pictures(
    path: str | Path, *, start: int | None = None, threads: int = 0, container_format: str | None = None
) -> Iterator[Picture]:
    """Every frame of a video in order; with ``start``, those from the frame with this ``pts`` on.

    ``threads`` decode, 0 means one for each core. ``container_format`` is as in ``open_stream``. Raises ``MediaError``,
    at the frame where it shows, if the file is missing, damaged, cut short, or has no frame at ``start``.
    """
    num_packets, index, begun = 0, 0, start is None
    with open_stream(path, container_format) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        width = stream.width * float(stream.sample_aspect_ratio or 1)
        if start is not None:
            container.seek(start, stream=stream)
        for packet in container.demux(stream):
            num_packets += packet.size > 0
            for frame in packet.decode():
                begun = begun or frame.pts == start
                if not begun:
                    if frame.pts is not None and start is not None and frame.pts > start:
                        raise MediaError(f"{path} has no frame that begins at {start}.")
                    continue
                if frame.is_corrupt:
                    raise MediaError(f"{path} is damaged: frame {index} cannot be decoded whole.")
                yield Picture(frame, width, stream.height, frame.pts)
                index += 1
        if start is None and num_packets < stream.frames:
            raise MediaError(f"{path} is cut short: it has {num_packets} of the {stream.frames} frames it announces.")
        if not begun:
            raise MediaError(f"{path} has no frame that begins at {start}.")


def converted(pictures: Iterable[Picture], convert: Callable[[Picture], T]) -> Iterator[tuple[Picture, T]]:
    """Each picture with what ``convert`` makes of it, in order: made in a thread while the next ones are decoded."""
    waiting: deque[tuple[Picture, Future[T]]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for picture in pictures:
            waiting.append((picture, thread.submit(convert, picture)))
            if len(waiting) > AHEAD:
                done, result = waiting.popleft()
                yield done, result.result()
        yield from ((picture, result.result()) for picture, result in waiting)


def stream_video(
    path: str | Path,
    wanted: Callable[[int], bool] = lambda _: True,
    *,
    max_width: int | None = None,
    container_format: str | None = None,
) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"] | None]]:
    """Every frame of a video as (index, frame), in order; None in place of a frame that is not ``wanted``.

    ``max_width`` is as in ``Picture.pixels``, the rest as in ``stream_pictures``.
    """
    for index, picture in enumerate(stream_pictures(path, container_format=container_format)):
        yield index, picture.pixels(max_width) if wanted(index) else None
