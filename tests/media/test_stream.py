"""Pictures that are converted while the next ones are decoded."""

from pathlib import Path

import numpy as np
import pytest

from openltx.errors import MediaError
from openltx.media.io import write_video
from openltx.media.stream import AHEAD, Picture, converted, stream_pictures


@pytest.fixture(scope="module", params=[1, AHEAD, 3 * AHEAD])
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A video whose frames grow lighter."""
    path, frames = tmp_path_factory.mktemp("film") / "film.mp4", request.param
    levels = np.linspace(20, 230, frames).astype(np.uint8)
    write_video(path, np.broadcast_to(levels[:, None, None, None], (frames, 32, 48, 3)).copy(), 24.0)
    return path, frames


def test_they_come_in_order_with_what_was_made_of_them(film: tuple[Path, int]) -> None:
    path, frames = film
    found = list(converted(stream_pictures(path), lambda picture: picture.pixels(16)))
    assert len(found) == frames
    for picture, pixels in found:
        assert pixels.shape == (11, 16, 3)
        np.testing.assert_array_equal(pixels, picture.pixels(16))
    means = [pixels.mean() for _, pixels in found]
    assert means == sorted(means)


def test_what_goes_wrong_is_told(film: tuple[Path, int], tmp_path: Path) -> None:
    def broken(picture: Picture) -> int:
        raise MediaError("no")

    with pytest.raises(MediaError, match=r"^no$"):
        list(converted(stream_pictures(film[0]), broken))
    with pytest.raises(MediaError, match="no file"):
        list(converted(stream_pictures(tmp_path / "none.mp4"), broken))
