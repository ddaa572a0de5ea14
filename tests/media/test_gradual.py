"""Frames that are written as they come."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from openltx.errors import MediaError
from openltx.media.gradual import write_gradually
from openltx.media.io import read_metadata, read_video, write_video

FRAMES = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3)).astype(np.uint8)


def pieces() -> Iterator[np.ndarray]:
    yield FRAMES[:1]
    yield FRAMES[1:7]
    yield FRAMES[7:]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_pieces_make_the_file_that_the_whole_makes(tmp_path: Path, suffix: str) -> None:
    paths = tmp_path / f"gradual{suffix}", tmp_path / f"whole{suffix}"
    assert write_gradually(paths[0], pieces(), 24.0, lambda: {"a": "b"}) == [paths[0]]
    write_video(paths[1], FRAMES, 24.0, {"a": "b"})
    (ours, fps), (theirs, their_fps) = (read_video(path) for path in paths)
    assert fps == their_fps
    assert np.array_equal(ours, theirs)
    assert read_metadata(paths[0]) == {"a": "b"}


def test_pictures_are_a_series(tmp_path: Path) -> None:
    files = write_gradually(tmp_path / "x.png", pieces(), 24.0, dict)
    assert [path.name for path in files] == [f"x-{i:04d}.png" for i in range(1, 10)]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_what_is_known_only_in_the_end_is_in_the_file(tmp_path: Path, suffix: str) -> None:
    frames_seen = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal frames_seen
        for piece in pieces():
            frames_seen += len(piece)
            yield piece

    path = tmp_path / f"x{suffix}"
    write_gradually(path, counted(), 24.0, lambda: {"frames": str(10**frames_seen), "prompt": "übung"})
    assert read_metadata(path) == {"frames": "1000000000", "prompt": "übung"}
    assert read_video(path)[0].shape == FRAMES.shape


def test_frames_that_cannot_be_made_leave_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield FRAMES[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gradually(tmp_path / "x.mp4", broken(), 24.0, dict)
    with pytest.raises(MediaError, match="no frames"):
        write_gradually(tmp_path / "x.mp4", iter(()), 24.0, dict)
    assert list(tmp_path.iterdir()) == []
