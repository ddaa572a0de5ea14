"""Shots: cuts are found, motion is none, and damage is."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from openltx.data.shots import Shot, find_shots
from openltx.errors import DataError, MediaError
from openltx.media.io import write_video
from openltx.media.stream import stream_video

COLOURS = ((200, 40, 40), (40, 60, 200), (230, 220, 60))


def moving(colour: tuple[int, int, int], frames: int, speed: int = 2, size: int = 64) -> np.ndarray:
    """Bright stripes that wander over a ground of one colour."""
    columns = np.arange(size)[None, :] - speed * np.arange(frames)[:, None]
    shade = np.where(columns % 32 < 12, 1.0, 0.6)[:, None, :, None]
    return np.broadcast_to(shade * np.array(colour), (frames, size, size, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots of 12, 9 and 30 frames."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    shots = [moving(colour, frames) for colour, frames in zip(COLOURS, (12, 9, 30), strict=True)]
    write_video(path, np.concatenate(shots), 24.0)
    return path


def test_shots_cover_the_film_and_meet_at_its_cuts(film: Path) -> None:
    seen: list[int] = []
    shots = [Shot(first=0, frames=12), Shot(first=12, frames=9), Shot(first=21, frames=30)]
    assert find_shots(film, progress=seen.append) == shots
    assert seen == list(range(1, 52))


def test_fast_motion_is_no_cut(tmp_path: Path) -> None:
    write_video(tmp_path / "fast.mp4", moving(COLOURS[0], 40, speed=9), 24.0)
    assert find_shots(tmp_path / "fast.mp4") == [Shot(first=0, frames=40)]


def test_without_the_package_its_name_is_told(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(DataError, match=r'pip install "openltx\[data\]"'):
        find_shots(film)


def test_a_film_cut_short_damaged_or_of_unknown_codec_is_refused(film: Path, tmp_path: Path) -> None:
    content = bytearray(film.read_bytes())
    frames = content.rindex(b"mdat") + 4
    (tmp_path / "short.mp4").write_bytes(content[: (frames + len(content)) // 2])
    content[frames + 2000 : frames + 2400] = bytes(400)
    (tmp_path / "damaged.mp4").write_bytes(content)
    (tmp_path / "codec.mp4").write_bytes(film.read_bytes().replace(b"avc1", b"odd1"))
    for name in ("short.mp4", "damaged.mp4", "codec.mp4"):
        with pytest.raises(MediaError, match=name):
            find_shots(tmp_path / name)


def test_streamed_frames_are_those_of_the_file_and_unwanted_ones_are_not_made(film: Path) -> None:
    streamed = list(stream_video(film, lambda index: index % 20 == 5))
    assert [index for index, frame in streamed if frame is not None] == [5, 25, 45]
    assert len(streamed) == 51


def test_a_phone_video_is_turned_upright(tmp_path: Path) -> None:
    frames = np.zeros((3, 32, 64, 3), np.uint8)
    frames[:, :16, :16] = 255  # the top left corner
    write_video(tmp_path / "a.mp4", frames, 24.0)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 44
    quarter_turn = np.array([0, 1 << 16, 0, -1 << 16, 0, 0], ">i4")  # clockwise, as held upright
    content[matrix : matrix + 24] = quarter_turn.tobytes()
    (tmp_path / "a.mp4").write_bytes(content)
    _, frame = next(stream_video(tmp_path / "a.mp4"))
    assert frame is not None
    assert frame.shape == (64, 32, 3)
    assert frame[:16, 16:].min() > 200
    assert frame[20:].max() < 50


def test_oblong_pixels_become_square(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    _, frame = next(stream_video(tmp_path / "a.mp4"))
    assert frame is not None
    assert frame.shape == (32, 48, 3)
