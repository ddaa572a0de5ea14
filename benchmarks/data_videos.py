"""Videos whose truth is known: forty odd files, and clips with bars, standstill, shaking, copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FRAMES = 30
MATROSKA_CLUSTER = bytes.fromhex("1f43b675")  # begins the frames


def odd_files(folder: Path) -> dict[str, bool]:
    """Write forty videos, most of them damaged or unusual; for each name whether clips of it can be expected."""
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, bool] = {}

    def add(name: str, usable: bool, write: Callable[[Path], Any]) -> None:
        write(folder / name)
        expected[name] = usable

    for name, usable, write in [*_cut_and_overwritten(folder), *_no_videos(), *_unusual()]:
        add(name, usable, write)
    assert len(expected) == 40, len(expected)
    return expected


Case = tuple[str, bool, Callable[[Path], Any]]


def _cut_and_overwritten(folder: Path) -> list[Case]:
    """Whole files with parts missing or replaced."""
    whole = folder.parent / "whole"
    whole.mkdir(exist_ok=True)
    encode(whole / "a.mp4", picture(FRAMES, seed=1))
    encode(whole / "front.mp4", picture(FRAMES, seed=2), container={"movflags": "faststart"})
    encode(whole / "a.mkv", picture(FRAMES, seed=3))
    encode(whole / "a.avi", picture(FRAMES, seed=4), codec="mpeg4")
    content = {path.name: path.read_bytes() for path in whole.iterdir()}

    def part(name: str, share: float) -> Callable[[Path], Any]:
        return lambda path: path.write_bytes(content[name][: int(share * len(content[name]))])

    def overwritten(name: str, at: float, count: int, seed: int) -> Callable[[Path], Any]:
        noise = np.random.default_rng(seed).integers(0, 256, count, np.uint8).tobytes()
        start = int(at * len(content[name]))
        return lambda path: path.write_bytes(content[name][:start] + noise + content[name][start + count :])

    return [
        *((f"cut-{int(100 * share)}.mp4", False, part("a.mp4", share)) for share in (0.02, 0.3, 0.6, 0.9)),
        *((f"cut-front-{int(100 * share)}.mp4", False, part("front.mp4", share)) for share in (0.3, 0.6, 0.9)),
        ("cut-10.mkv", False, part("a.mkv", 0.1)),
        ("cut-20.avi", False, part("a.avi", 0.2)),
        ("no-frames.mkv", False, lambda path: path.write_bytes(content["a.mkv"].split(MATROSKA_CLUSTER)[0])),
        ("noise-head.mp4", False, overwritten("a.mp4", 0.0, 64, 0)),
        ("noise-index.mp4", False, overwritten("a.mp4", 0.86, 400, 1)),
        ("noise-frames.mp4", False, overwritten("front.mp4", 0.5, 800, 2)),
        ("noise-head.mkv", False, overwritten("a.mkv", 0.0, 64, 3)),
        ("wrong-suffix.avi", True, lambda path: path.write_bytes(content["a.mkv"])),
    ]


def _no_videos() -> list[Case]:
    """What is called a video and is none."""
    noise = np.random.default_rng(5).integers(0, 256, 5000, np.uint8).tobytes()
    return [
        ("empty.mp4", False, lambda path: path.write_bytes(b"")),
        ("one-byte.mp4", False, lambda path: path.write_bytes(b"\0")),
        ("zeros.mp4", False, lambda path: path.write_bytes(bytes(5000))),
        ("noise.mkv", False, lambda path: path.write_bytes(noise)),
        ("text.mov", False, lambda path: path.write_text("A film was meant to be here.\n" * 40)),
        ("page.webm", False, lambda path: path.write_text("<!doctype html><title>404</title>")),
        ("sound.mp4", False, _sound),
        ("sound.mkv", False, _sound),
    ]


def _unusual() -> list[Case]:
    """Whole videos of an unusual kind."""
    return [
        ("one-frame.mp4", False, lambda path: encode(path, picture(1, seed=7))),
        ("two-frames.mkv", False, lambda path: encode(path, picture(2, seed=8))),
        ("tiny.mp4", False, lambda path: encode(path, picture(FRAMES, seed=9, size=(2, 2)), pix_fmt="yuv444p")),
        ("uneven-rate.mp4", True, lambda path: encode(path, picture(FRAMES, seed=10), ticks=_uneven(FRAMES))),
        ("gap.mkv", True, lambda path: encode(path, picture(FRAMES, seed=11), ticks=_gap(FRAMES))),
        ("odd-size.mp4", True, lambda path: encode(path, picture(FRAMES, seed=12, size=(97, 131)), pix_fmt="yuv444p")),
        ("turned.mp4", True, lambda path: encode(path, picture(FRAMES, seed=13), turned=True)),
        ("ten-bit.mp4", True, lambda path: encode(path, picture(FRAMES, seed=14), pix_fmt="yuv420p10le")),
        ("ten-bit.mkv", True, lambda path: encode(path, picture(FRAMES, seed=15), codec="ffv1", pix_fmt="yuv422p10le")),
        ("alpha.mov", True, lambda path: encode(path, picture(FRAMES, seed=16), codec="png", pix_fmt="rgba")),
        ("alpha.mkv", True, lambda path: encode(path, picture(FRAMES, seed=17), codec="ffv1", pix_fmt="bgra")),
        ("grey.mkv", True, lambda path: encode(path, picture(FRAMES, seed=18), codec="ffv1", pix_fmt="gray")),
        (
            "motion-jpeg.avi",
            True,
            lambda path: encode(path, picture(FRAMES, seed=19), codec="mjpeg", pix_fmt="yuvj420p"),
        ),
        ("mpeg2.mpg", True, lambda path: encode(path, picture(FRAMES, seed=20), codec="mpeg2video")),
        ("fast.mp4", True, lambda path: encode(path, picture(FRAMES, seed=21), fps=Fraction(240))),
        ("ünïcode näme 走.mp4", True, lambda path: encode(path, picture(FRAMES, seed=22))),
        ("üz-copy.mp4", False, lambda path: path.write_bytes((path.parent / "ünïcode näme 走.mp4").read_bytes())),
    ]


def picture(frames: int, seed: int = 0, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Coloured shapes that drift over a textured ground: uint8 F H W 3."""
    rng = np.random.default_rng(seed)
    height, width = size
    ground = _smooth(rng.uniform(40, 215, (height // 8 + 2, width // 8 + 2, 3)), (height, width))
    speed = rng.uniform(0.8, 2.0) * np.sign(rng.uniform(-1, 1))
    boxes = [(rng.uniform(0, height), rng.uniform(0, width), rng.uniform(30, 225, 3)) for _ in range(5)]
    video = np.zeros((frames, height, width, 3), np.uint8)
    for index in range(frames):
        frame = np.roll(ground, round(speed * index), axis=1).copy()
        for top, left, colour in boxes:
            row, column = int(top + 0.5 * index) % height, int(left - 1.5 * speed * index) % width
            frame[row : row + height // 4, column : column + width // 5] = colour
        video[index] = frame
    return video


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: Fraction = Fraction(24),
    ticks: Sequence[int] | None = None,
    turned: bool = False,
    crf: int = 16,
    container: dict[str, str] | None = None,
) -> None:
    """A video file of any kind; ``ticks`` are the times of its frames in 1/240 s, where they are not even."""
    with av.open(str(path), "w", options=container or {}) as file:
        options = {"crf": str(crf), "g": "12", "x264-params": "threads=1:log-level=none"} if codec == "libx264" else {}
        stream: Any = file.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 240)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=pix_fmt)
            if ticks is not None:
                frame.pts, frame.time_base = ticks[index], Fraction(1, 240)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    if turned:
        content = bytearray(path.read_bytes())
        matrix = content.index(b"tkhd") + 44
        content[matrix : matrix + 24] = np.array([0, 1 << 16, 0, -1 << 16, 0, 0], ">i4").tobytes()
        path.write_bytes(content)


@dataclass(frozen=True)
class Known:
    """A clip and what was done to it: the black border (top, bottom, left, right), and which clip it is a copy of."""

    name: str
    frames: np.ndarray
    bars: tuple[int, int, int, int] = (0, 0, 0, 0)
    is_still: bool = False
    is_shaken: bool = False
    copy_of: str | None = None
    crf: int = 16


def known_clips(bases: Sequence[np.ndarray], seed: int = 0) -> list[Known]:
    """Five clips of each base (uint8 F H W 3): itself, with bars, frozen, shaken, and scaled and coded again."""
    rng = np.random.default_rng(seed)
    found = []
    for number, base in enumerate(bases):
        name = f"{number:03d}"
        with_bars, bars = _with_bars(base, rng)
        found += [
            Known(f"{name}-clean", base),
            Known(f"{name}-bars", with_bars, bars=bars, copy_of=f"{name}-clean"),
            Known(f"{name}-frozen", _frozen(base, rng), is_still=True),
            Known(f"{name}-shaken", _shaken(base, rng), is_shaken=True),
            Known(f"{name}-again", _scaled(base, rng.uniform(0.5, 0.9)), copy_of=f"{name}-clean", crf=34),
        ]
    return found


def _with_bars(base: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Above and below, or beside the picture, or both; even numbers of pixels, as video has them."""
    height, width = base.shape[1:3]
    kind = rng.integers(3)
    rows = 2 * int(rng.uniform(0.03, 0.15) * height / 2) if kind != 1 else 0
    columns = 2 * int(rng.uniform(0.03, 0.15) * width / 2) if kind != 0 else 0
    made = np.pad(base, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    return made, (rows, rows, columns, columns)


def _frozen(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Still from the beginning, or from somewhere in the first half on."""
    made = base.copy()
    start = 0 if rng.random() < 0.5 else int(rng.uniform(0.1, 0.5) * len(base))
    made[start:] = made[start]
    return made


def _shaken(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each frame cut out at another place, up to 1.5 to 3 % of the picture away."""
    height, width = base.shape[1:3]
    reach = max(int(rng.uniform(0.015, 0.03) * height), 2)
    places = rng.integers(0, 2 * reach + 1, (len(base), 2))
    cut = [f[y : y + height - 2 * reach, x : x + width - 2 * reach] for f, (y, x) in zip(base, places, strict=True)]
    return np.stack(cut)[:, : (height - 2 * reach) // 2 * 2, : (width - 2 * reach) // 2 * 2]


def _scaled(base: np.ndarray, scale: float) -> np.ndarray:
    import cv2

    size = tuple(2 * int(side * scale / 2) for side in (base.shape[2], base.shape[1]))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in base])


def _smooth(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    return (
        cv2.resize(coarse.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR).clip(0, 255).astype(np.uint8)
    )


def _sound(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("aac", rate=44100)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 44100
        file.mux(stream.encode(samples))
        file.mux(stream.encode(None))


def _uneven(frames: int) -> list[int]:
    """Each frame on show for 4 to 40 of 240 ticks."""
    return np.cumsum(np.random.default_rng(0).integers(4, 41, frames)).tolist()


def _gap(frames: int) -> list[int]:
    """Ten ticks each, but one frame in the middle is on show for half a second."""
    return [10 * index + (120 if index > frames // 2 else 0) for index in range(frames)]
