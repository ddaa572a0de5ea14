"""What clients upload, decoded where it can do no harm: in a process of its own, with little memory, time and rights.

What a file is, its first bytes say, not its name or its announced type; a few kinds are read, each by its own reader.
A picture becomes a PNG, a clip or an animation an MP4, pixel by pixel, and only these are kept. So the model's process
never reads a byte that a client has made.

The decoder is forked from a process that has imported what it needs. It starts with the first upload, which waits two
seconds for it; after that one costs milliseconds.
"""

import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8

from openltx.errors import MediaError, OpenLTXError
from openltx.serve.settings import Limits

_METADATA_CHARACTERS = 100_000
CLIP_CRF = 8  # visually lossless: what is made of a clip is as good as the clip
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
)
_PICTURES = ("PNG", "JPEG", "GIF", "WEBP")
_POSSIBLE = "Possible are PNG, JPEG, WebP and GIF, and MP4, WebM, Matroska and AVI."

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What an upload turned out to be; ``file`` is the clean copy of it."""

    kind: Literal["picture", "clip"]
    frames: int
    width: int
    height: int
    file: Path


class Decoder:
    """Decodes uploads, each in a process of its own."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "openltx.media.stream", "PIL.PngImagePlugin"])

    def __call__(self, source: Path) -> Decoded:
        """Make a clean copy of ``source`` beside it; raises ``MediaError`` with what is wrong with it."""
        return self._apart(_clean_copy, source)

    def metadata(self, source: Path) -> dict[str, str]:
        """What openltx wrote into a file that it made; empty for others. Raises ``MediaError``."""
        return self._apart(_metadata, source)

    def _apart(self, work: Callable[[Path, Limits], T], source: Path) -> T:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_decode, args=(work, source, self._limits, sender), daemon=True)
        process.start()
        sender.close()
        try:
            if not receiver.poll(self._limits.decode_seconds + 5):
                raise MediaError(
                    f"Decoding takes more than {self._limits.decode_seconds} seconds. Send a smaller file."
                )
            answer = receiver.recv()
        except EOFError:  # the process has died: of its limits, or of the file
            raise MediaError(
                "The file cannot be decoded: it needs more memory or time than one upload may have, or it is damaged. "
                "Send a smaller one, or code it anew."
            ) from None
        finally:
            process.kill()
            process.join()
            receiver.close()
        if isinstance(answer, _Complaint):
            raise MediaError(str(answer))
        return answer


class _Complaint(str):
    """What is wrong with a file."""


def _decode(work: Callable[[Path, Limits], Any], source: Path, limits: Limits, sender: Connection) -> None:
    """The child process: limit itself, work, and send what came of it or a complaint."""
    _limit_this_process(limits)
    try:
        sender.send(work(source, limits))
    except MemoryError:
        sender.send(_Complaint("The file needs more memory than one upload may have. Send a smaller one."))
    except OpenLTXError as error:
        sender.send(_Complaint(str(error).replace(str(source), "The file").replace(f"{source.parent}/", "")))
    except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError) as error:
        sender.send(_Complaint(f"The file cannot be decoded ({type(error).__name__}). Is it whole? {_POSSIBLE}"))


def _limit_this_process(limits: Limits) -> None:
    """No more memory, processor time, file space, files or core dumps than an upload needs; then no second chance."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(limits.decode_seconds)
    wanted = {
        resource.RLIMIT_CPU: limits.decode_seconds,
        resource.RLIMIT_FSIZE: limits.decode_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        wanted[resource.RLIMIT_AS] = pages * resource.getpagesize() + limits.decode_bytes
    for kind, limit in wanted.items():
        resource.setrlimit(kind, (limit, limit))


def _kind_of(source: Path) -> str:
    """What a file is by its first bytes: a format of Pillow's, or a container of PyAV's."""
    with source.open("rb") as file:
        head = file.read(16)
    kind = next((name for at, mark, name in _SIGNATURES if head[at : at + len(mark)] == mark), None)
    if kind is None:
        raise MediaError(f"This is no picture and no video that can be read. {_POSSIBLE}")
    return kind


def _metadata(source: Path, limits: Limits) -> dict[str, str]:
    from openltx.media.io import open_stream, read_metadata
    from openltx.media.metadata import KEY, unpack

    kind = _kind_of(source)
    if kind not in _PICTURES:
        with open_stream(source, kind) as (container, _):
            found = unpack(container.metadata.get(KEY), container.metadata.get("comment"))
    elif kind == "JPEG":
        found = {}
    else:
        _check_picture(source, kind, limits)
        found = read_metadata(_renamed(source, kind))
    if sum(map(len, found.values())) > _METADATA_CHARACTERS:
        raise MediaError("The file says more of itself than openltx ever writes.")
    return found


def _renamed(source: Path, kind: str) -> Path:
    """The file under a suffix that says what it is."""
    return source.rename(source.with_name(f"picture.{kind.lower()}"))


def _clean_copy(source: Path, limits: Limits) -> Decoded:
    kind = _kind_of(source)
    if kind not in _PICTURES:
        return _clip(source, limits, kind)
    num_frames = _check_picture(source, kind, limits)
    return _picture(source) if num_frames == 1 else _animation(source, kind, limits)


def _check_picture(source: Path, kind: str, limits: Limits) -> int:
    """The number of frames, after a look at the sizes that the file announces and before anything is decoded."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # our own limit comes first, and says more
    with Image.open(source, formats=[kind]) as image:
        width, height = image.size
        num_frames = getattr(image, "n_frames", 1)
    _require_size(width, height, num_frames, limits)
    return num_frames


def _picture(source: Path) -> Decoded:
    from PIL import Image

    from openltx.media.io import read_image

    pixels = read_image(source)
    target = source.with_name("picture.png")
    Image.fromarray(pixels).save(target, format="PNG", compress_level=1)
    return Decoded(kind="picture", frames=1, width=pixels.shape[1], height=pixels.shape[0], file=target)


def _animation(source: Path, kind: str, limits: Limits) -> Decoded:
    from openltx.media.io import read_video

    frames, fps = read_video(_renamed(source, kind))
    return _write_clip(source, ((index, frame) for index, frame in enumerate(frames)), fps, limits)


def _clip(source: Path, limits: Limits, container_format: str) -> Decoded:
    from openltx.media.io import open_stream, stream_fps
    from openltx.media.stream import stream_video

    with open_stream(source, container_format) as (_, stream):
        _require_size(stream.width, stream.height, max(stream.frames, 1), limits)
        fps = stream_fps(stream)
    frames = stream_video(source, container_format=container_format)
    return _write_clip(source, frames, fps, limits)


def _write_clip(
    source: Path, frames: Iterator[tuple[int, UInt8[np.ndarray, "H W 3"] | None]], fps: float, limits: Limits
) -> Decoded:
    """Write frames as they come, and stop at the first one too many: what a file announces need not be true."""
    from openltx.media.writers import VideoWriter

    target = source.with_name("clip.mp4")
    count, size = 0, None
    if not 0.1 <= fps <= 1000:
        raise MediaError(f"The clip claims {fps:g} frames a second. Possible are 0.1 to 1000.")
    with VideoWriter(target, fps, crf=CLIP_CRF) as writer:
        for index, frame in frames:
            assert frame is not None
            size = size or frame.shape[:2]
            if frame.shape[:2] != size:
                raise MediaError("The frames of the clip change their size. Code it anew with one size.")
            _require_size(size[1], size[0], index + 1, limits)
            writer.write(frame[None])
            count = index + 1
    assert size is not None, "VideoWriter refuses a video without frames"
    return Decoded(kind="clip", frames=count, width=size[1], height=size[0], file=target)


def _require_size(width: int, height: int, num_frames: int, limits: Limits) -> None:
    """Raise ``MediaError`` unless an upload of this size is taken."""
    pixels = width * height * num_frames
    most = limits.upload_pixels if num_frames > 1 else limits.upload_pixels // 20
    if max(width, height) > limits.upload_side or num_frames > limits.upload_frames or pixels > most:
        raise MediaError(
            f"{num_frames} frames of {width}x{height} are too many. An upload may have {limits.upload_frames} frames, "
            f"sides of {limits.upload_side}, and {most} pixels in all. Send a smaller or shorter one."
        )
