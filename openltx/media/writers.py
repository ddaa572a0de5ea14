"""One writer for each format. All write to a hidden file beside the target and rename it once it is whole."""

import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from openltx.errors import MediaError
from openltx.media.metadata import EXIF_DESCRIPTION, KEY, pack

SUFFIXES = (".mp4", ".gif", ".webp", ".png")
DEFAULT_CRF = 18
_PALETTE_FRAMES = 16  # a GIF's one palette is made from this many frames, so that colours do not flicker
_SPARE = 32  # characters by which metadata may grow between the first frame and the last


def require_writable(path: Path) -> str:
    """The suffix of ``path`` in lower case; raises ``MediaError`` if no writer has it or the folder is missing."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        asked = f'the suffix "{path.suffix}"' if path.suffix else "no suffix"
        raise MediaError(f"Cannot write {path}: it has {asked}. Possible are {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise MediaError(f"Cannot write {path}: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise MediaError(f"Cannot write {path}: it is a folder. Give the name of a file.")
    return suffix


def require_streamable(path: Path) -> None:
    """Raise ``MediaError`` if ``path`` cannot be written frame by frame."""
    if require_writable(path) != ".mp4":
        raise MediaError(f"Cannot stream to {path}: only .mp4 is written frame by frame.")


class VideoWriter:
    """An MP4 file written as frames arrive: ``with VideoWriter(path, fps) as writer: writer.write(frames)``.

    The file appears when the block ends well; after an error or an interrupt nothing is left behind.
    ``metadata`` may be a function, whose answer at the end is what counts (it may be a few characters longer then).
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        metadata: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        crf: int = DEFAULT_CRF,
    ) -> None:
        self._path = Path(path)
        self._fps = Fraction(fps).limit_denominator(1001)
        self._metadata = metadata
        self._embedded = ""
        self._crf = crf
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "VideoWriter":
        require_streamable(self._path)
        self._exit = ExitStack()
        self._temporary = self._exit.enter_context(_replacing(self._path))
        self._exit.push(self._close)
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._exit.__exit__(*exception)

    def write(self, frames: UInt8[np.ndarray, "F H W 3"]) -> None:
        """Append ``frames``; all must have one size."""
        if self._container is None and len(frames):
            self._open(*frames.shape[1:3])
        for frame in frames:
            self._encode(frame)

    def _encode(self, frame: np.ndarray) -> None:
        import av

        stream = self._stream
        assert frame.shape[:2] == (stream.height, stream.width), "all frames must have one size"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format=stream.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
        self._container.mux(stream.encode(picture))

    def _open(self, height: int, width: int) -> None:
        import av

        flags = {"movflags": "use_metadata_tags+faststart"}  # own tags are kept; the index comes first, for the web
        self._container = av.open(str(self._temporary), "w", format="mp4", options=flags)
        if self._metadata is not None:
            metadata = self._metadata
            self._embedded = pack(metadata()) + " " * _SPARE if callable(metadata) else pack(metadata)
            self._container.metadata.update({KEY: self._embedded, "comment": self._embedded})
        # x264's macroblock tree reads memory that nobody wrote (seen with AVX-512): the same frames, another file
        coding = {"crf": str(self._crf), "x264-params": "mbtree=0"}
        self._stream = self._container.add_stream("libx264", rate=self._fps, options=coding)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        codec = self._stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = 1  # BT.709
        codec.color_range = 1  # limited

    def _close(self, failure: type[BaseException] | None, *_: Any) -> None:
        if failure is not None:
            with suppress(OSError):  # the first error is the one to tell
                if self._container is not None:
                    self._container.close()
            return
        if self._container is None:
            raise MediaError(f"Cannot write {self._path}: there are no frames.")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        if callable(self._metadata):
            _exchange(self._temporary, self._embedded, pack(self._metadata()))


def write_gif(path: Path, frames: UInt8[np.ndarray, "F H W 3"], fps: float, metadata: Mapping[str, str] | None) -> None:
    """An animation with one palette of 256 colours and error diffusion."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(len(frames), _PALETTE_FRAMES)).round().astype(int)]
    palette = Image.fromarray(np.concatenate(chosen)).quantize(256, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for f in frames]
    embedded = {} if metadata is None else {"comment": pack(metadata).encode()}
    with _replacing(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=_durations(len(frames), fps, unit=10),
            loop=0,
            **embedded,
        )


def write_webp(
    path: Path, frames: UInt8[np.ndarray, "F H W 3"], fps: float, metadata: Mapping[str, str] | None
) -> None:
    """An animation in lossy WebP of high quality."""
    pictures = [Image.fromarray(frame) for frame in frames]
    exif = Image.Exif()
    if metadata is not None:
        exif[EXIF_DESCRIPTION] = pack(metadata)
    with _replacing(path) as temporary:
        pictures[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=_durations(len(frames), fps, unit=1),
            loop=0,
            quality=90,
            exif=exif.tobytes(),
        )


def write_pngs(path: Path, frames: UInt8[np.ndarray, "F H W 3"], metadata: Mapping[str, str] | None) -> list[Path]:
    """One PNG named ``path``, or for several frames a numbered series beside it; returns their paths."""
    text = PngInfo()
    if metadata is not None:
        text.add_text(KEY, pack(metadata))
    paths = [path] if len(frames) == 1 else [numbered(path, i) for i in range(1, len(frames) + 1)]
    with ExitStack() as files:
        temporaries = [files.enter_context(_replacing(target)) for target in paths]
        for frame, temporary in zip(frames, temporaries, strict=True):
            Image.fromarray(frame).save(temporary, format="PNG", pnginfo=text)
    return paths


def numbered(path: Path, number: int) -> Path:
    """``name-0001.png`` for ``name.png``."""
    return path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def _durations(count: int, fps: float, unit: int) -> list[int]:
    """Milliseconds per frame in whole ``unit``s, none below one, spread so that their sum keeps to ``fps``."""
    edges = np.round(np.arange(count + 1) * 1000 / fps / unit)
    return (np.maximum(np.diff(edges), 1).astype(int) * unit).tolist()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` if the block ends well, and vanishes if not."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise MediaError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _exchange(path: Path, old: str, new: str) -> None:
    """Put ``new``, filled up with spaces, wherever a file has the text ``old``."""
    assert len(new) <= len(old), "metadata grew by more than was kept free for it"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        place = data.find(old.encode())
        while place >= 0:
            data[place : place + len(old)] = new.ljust(len(old)).encode()
            place = data.find(old.encode(), place + len(old))
