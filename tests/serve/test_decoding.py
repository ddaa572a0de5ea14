"""Uploads, decoded in a process of their own: what they show comes through, what they do does not."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openltx.errors import MediaError
from openltx.media.io import read_image, read_video, write_video
from openltx.serve import decoding
from openltx.serve.decoding import Decoder
from openltx.serve.settings import Limits

LIMITS = Limits(upload_frames=20, upload_side=2000, upload_pixels=4_000_000, decode_seconds=20)
Write = Callable[[bytes], Path]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(LIMITS)


@pytest.fixture
def raw(tmp_path: Path) -> Write:
    def write(content: bytes) -> Path:
        path = tmp_path / "raw"
        path.write_bytes(content)
        return path

    return write


def picture(kind: str, size: tuple[int, int] = (40, 30), **options) -> bytes:
    buffer = io.BytesIO()
    Image.effect_mandelbrot(size, (-2, -1.5, 1, 1.5), 20).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_comes_through_pixel_by_pixel(decoder: Decoder, raw: Write, tmp_path: Path, kind: str) -> None:
    content = picture(kind)
    decoded = decoder(raw(content))
    assert (decoded.kind, decoded.frames, decoded.width, decoded.height) == ("picture", 1, 40, 30)
    (tmp_path / f"expected.{kind.lower()}").write_bytes(content)
    assert np.array_equal(read_image(decoded.file), read_image(tmp_path / f"expected.{kind.lower()}"))
    assert decoded.file.read_bytes().startswith(b"\x89PNG")


def test_a_clip_and_an_animation_come_through_as_mp4(decoder: Decoder, raw: Write, tmp_path: Path) -> None:
    frames = np.zeros((9, 32, 64, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[8:24, 4 * index : 4 * index + 20] = (200, 80, 40)
    for suffix in (".mp4", ".gif", ".webp"):
        write_video(tmp_path / f"x{suffix}", frames, 10.0)
        decoded = decoder(raw((tmp_path / f"x{suffix}").read_bytes()))
        assert (decoded.kind, decoded.frames, decoded.width, decoded.height) == ("clip", 9, 64, 32)
        seen, fps = read_video(decoded.file)
        assert fps == pytest.approx(10, rel=0.01)
        assert np.abs(seen.astype(int) - frames).mean() < 6


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"hello", "no picture and no video"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "no picture and no video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no picture and no video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture and no video"),
        (picture("PNG")[:200], "cannot be"),
        (picture("JPEG")[:200], "cannot be"),
        (b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 100, "cannot be|no video"),
        (b"\x1a\x45\xdf\xa3" + b"\xff" * 100, "cannot be|no video"),
        (b"RIFF\x24\x00\x00\x00AVI " + b"\x00" * 100, "cannot be|no video"),
        (png_claiming(100_000, 100_000), "too many"),
        (png_claiming(1999, 1999), "too many"),
        (picture("PNG", (2001, 10)), "too many"),
    ],
    ids=lambda value: value[:12].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_is_not_what_it_claims_is_refused_in_words(
    decoder: Decoder, raw: Write, tmp_path: Path, content: bytes, expected: str
) -> None:
    with pytest.raises(MediaError, match=expected) as refusal:
        decoder(raw(content))
    assert str(tmp_path) not in str(refusal.value)


def test_a_bomb_behind_the_pixels_is_not_unpacked(decoder: Decoder, raw: Write) -> None:
    decoded = decoder(raw(png_claiming(40, 40, zlib.compress(b"\0" * 50_000_000))))
    assert (decoded.width, decoded.height) == (40, 40)
    assert decoded.file.stat().st_size < 1000


def test_a_clip_that_is_too_long_or_cut_short_is_refused(decoder: Decoder, raw: Write, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", np.zeros((30, 32, 32, 3), np.uint8), 10.0)
    content = (tmp_path / "long.mp4").read_bytes()
    with pytest.raises(MediaError, match="too many"):
        decoder(raw(content))
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    write_video(tmp_path / "noise.mp4", noise, 10.0)
    content = (tmp_path / "noise.mp4").read_bytes()
    with pytest.raises(MediaError):
        decoder(raw(content[: len(content) // 2]))


def _hog(*_: object) -> None:
    bytearray(10**12)


def _spin(*_: object) -> None:
    while True:
        pass


def test_the_child_limits_its_own_memory_and_time(tmp_path: Path) -> None:
    """What a decoder might do wrong, done on purpose in a process that has limited itself."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    for deed, expected in ((_hog, 1), (_spin, None)):
        process = context.Process(target=_limited, args=(deed,))
        started = time.monotonic()
        process.start()
        process.join(20)
        assert process.exitcode not in (None, 0)
        assert expected is None or process.exitcode == expected
        assert time.monotonic() - started < 10


def _limited(deed: Callable[[], None]) -> None:
    decoding._limit_this_process(Limits(decode_seconds=1, decode_bytes=200_000_000))
    deed()
