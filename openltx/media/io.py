"""Video and picture files in and out; the format follows the suffix.

    .mp4          H.264 in BT.709, limited range; yuv420p, which plays everywhere, or yuv444p if a side is odd
    .gif .webp    animations that loop
    .png          one picture, or ``name-0001.png``, ``name-0002.png``, ... for several frames

Reading takes whatever Pillow (pictures, animations) and PyAV (everything else) can decode. Each writer embeds a small
dictionary of text that ``read_metadata`` gives back exactly. Files appear whole or not at all.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, ImageSequence

from openltx.errors import MediaError
from openltx.geometry import VideoShape
from openltx.media.metadata import EXIF_DESCRIPTION, KEY, unpack
from openltx.media.writers import (
    DEFAULT_CRF,
    VideoWriter,
    require_writable,
    write_gif,
    write_pngs,
    write_webp,
)

__all__ = [
    "VideoWriter",
    "described",
    "is_picture",
    "probe",
    "read_image",
    "read_metadata",
    "read_video",
    "write_video",
]

_PILLOW_SUFFIXES = (".gif", ".webp", ".png")
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)  # its answers to bad files


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as it is meant to be seen: turned as its EXIF says, transparency on white, 16 bits reduced to 8.

    Raises ``MediaError`` if the file is missing or is no picture that Pillow can decode.
    """
    with _open_picture(path) as image:
        return _to_rgb(ImageOps.exif_transpose(image))


def read_video(
    path: str | Path, start: int = 0, count: int | None = None
) -> tuple[UInt8[np.ndarray, "F H W 3"], float]:
    """The ``count`` frames (None: all) from frame ``start`` on, at their native size, and the frames per second.

    GIF and WebP may store equal neighbours as one long frame; the frames are those stored, the rate their mean.
    Raises ``MediaError`` if the file is missing, damaged, cut short, or has too few frames.
    """
    read = _read_animation if _is_animation(path) else _read_stream
    frames, fps = read(path, lambda index: index >= start and (count is None or index < start + count))
    if not frames or (count is not None and len(frames) < count):
        asked = "all frames" if count is None else f"{count} frames"
        raise MediaError(
            f"{path} is too short: {asked} from frame {start} on were asked for, it has {len(frames)} there."
        )
    return np.stack(frames), fps


def probe(path: str | Path) -> VideoShape:
    """Frame count, size and frames per second of a video or an animation.

    Raises ``MediaError`` if the file is missing or cannot be decoded.
    """
    if _is_animation(path):
        frames, fps = _read_animation(path, lambda index: index == 0)
        with _open_picture(path) as image:
            return VideoShape(
                frames=getattr(image, "n_frames", 1), height=frames[0].shape[0], width=frames[0].shape[1], fps=fps
            )
    with open_stream(path) as (container, stream):
        frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        return VideoShape(frames=frames, height=stream.height, width=stream.width, fps=stream_fps(stream))


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a video file's header says of it."""

    shape: VideoShape
    codec: str
    pixels: str


def described(path: str | Path) -> Description:
    """``probe``, and how the file is coded; for videos, not animations."""
    shape = probe(path)
    with open_stream(path) as (_, stream):
        return Description(shape=shape, codec=stream.codec_context.name, pixels=stream.codec_context.pix_fmt or "?")


def read_metadata(path: str | Path) -> dict[str, str]:
    """The dictionary that ``write_video`` embedded; empty if there is none.

    Raises ``MediaError`` if the file is missing or cannot be decoded.
    """
    if _is_animation(path):
        with _open_picture(path) as image:
            return unpack(image.info.get(KEY), image.info.get("comment"), image.getexif().get(EXIF_DESCRIPTION))
    with open_stream(path) as (container, _):
        return unpack(container.metadata.get(KEY), container.metadata.get("comment"))


def write_video(
    path: str | Path,
    frames: UInt8[np.ndarray, "F H W 3"],
    fps: float,
    metadata: Mapping[str, str] | None = None,
    crf: int = DEFAULT_CRF,
) -> list[Path]:
    """Write ``frames`` to ``path``; returns the files written: the path itself, or the numbered ones of a PNG series.

    ``metadata`` is embedded (see ``read_metadata``); ``crf`` is H.264's quality, from 0 (lossless) to 51.
    Raises ``MediaError`` if the suffix is unknown, the folder missing or the disk full; then nothing is left behind.
    """
    path = Path(path)
    match require_writable(path):
        case ".mp4":
            with VideoWriter(path, fps, metadata, crf) as writer:
                writer.write(frames)
        case ".gif":
            write_gif(path, frames, fps, metadata)
        case ".webp":
            write_webp(path, frames, fps, metadata)
        case _:
            return write_pngs(path, frames, metadata)
    return [path]


def is_picture(path: str | Path) -> bool:
    """Whether the file holds a single picture rather than a video or an animation; ``MediaError`` if it is missing."""
    _require_file(path)
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) == 1
    except _PILLOW_ERRORS:
        return False


def _is_animation(path: str | Path) -> bool:
    return Path(path).suffix.lower() in _PILLOW_SUFFIXES


@contextmanager
def _open_picture(path: str | Path) -> Iterator[Image.Image]:
    _require_file(path)
    try:
        with Image.open(path) as image:
            yield image
    except _PILLOW_ERRORS as error:
        raise MediaError(
            f"{path} cannot be read as a picture ({error}). Give a whole PNG, JPEG, WebP or GIF."
        ) from error


@contextmanager
def open_stream(path: str | Path, container_format: str | None = None) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its first video stream; ``MediaError`` for what is missing, damaged or no video.

    With a ``container_format`` the file is taken as that and nothing else, and can refer to no other file: for files
    that are not trusted.
    """
    import av

    _require_file(path)
    try:
        options = {} if container_format is None else {"protocol_whitelist": "file"}
        with av.open(str(path), format=container_format, options=options) as container:
            if not container.streams.video:
                raise MediaError(f"{path} has no video in it, or only its beginning.")
            if container.streams.video[0].codec_context is None:
                raise MediaError(f"{path} is coded in a way that PyAV cannot decode. Give it as H.264, for example.")
            yield container, container.streams.video[0]
    except (OSError, av.FFmpegError) as error:
        raise MediaError(
            f"{path} cannot be read as a video ({error.strerror or error}). Is it whole, and a video?"
        ) from error


def _require_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise MediaError(f"There is no file {path}.")


def _read_stream(path: str | Path, wanted: Callable[[int], bool]) -> tuple[list[np.ndarray], float]:
    """The frames whose index is wanted (a contiguous range), and the frames per second."""
    frames, index, num_packets = [], 0, 0
    with open_stream(path) as (container, stream):
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            num_packets += packet.size > 0
            for frame in packet.decode():
                if wanted(index):
                    frames.append(frame.to_ndarray(format="rgb24"))
                elif frames:
                    return frames, stream_fps(stream)
                index += 1
        if num_packets < stream.frames:
            raise MediaError(f"{path} is cut short: it has {num_packets} of the {stream.frames} frames it announces.")
        return frames, stream_fps(stream)


def stream_fps(stream: Any) -> float:
    """The mean frames per second of PyAV's video stream."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def _read_animation(path: str | Path, wanted: Callable[[int], bool]) -> tuple[list[np.ndarray], float]:
    """The frames whose index is wanted, and the mean frames per second of the whole file."""
    frames, milliseconds = [], []
    with _open_picture(path) as image:
        for index, picture in enumerate(ImageSequence.Iterator(image)):
            picture.load()  # WebP knows a frame's duration only then
            milliseconds.append(picture.info.get("duration", 0))
            if wanted(index):
                frames.append(_to_rgb(picture))
    return frames, 1000 * len(milliseconds) / (sum(milliseconds) or 100 * len(milliseconds))  # viewers assume 100 ms


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        grey = (np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.array(Image.alpha_composite(white, image).convert("RGB"))
    return np.array(image.convert("RGB"))
