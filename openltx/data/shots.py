"""Where a film is cut: the shots that a camera, or an animator, took without interruption.

Two detectors:

    adaptive    PySceneDetect's ``AdaptiveDetector``: the change of hue, saturation and lightness from frame to frame
                must be at least 15 levels, and 2.5 times that of the two frames before and after, so that fast
                motion is no cut. A slow dissolve or fade is not found: its two sides are one shot.
    transnet    TransNetV2, a network that was trained on cuts and dissolves: a frame is the last before a change where
                its probability is above 0.5; of a dissolve the middle is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from openltx.errors import DataError
from openltx.media.stream import converted, stream_pictures

ADAPTIVE_THRESHOLD, MIN_CHANGE = 2.5, 15.0
LOOK_WIDTH = 256  # pixels across of the frames that are compared
PROBABLE = 0.5

DetectorName = Literal["adaptive", "transnet"]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """``frames`` frames of a video from frame ``first`` on."""

    first: int
    frames: int


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The shots of a video, the time of each frame in the stream's own unit (None where it has none), and the height
    and width as it is meant to be seen."""

    shots: list[Shot]
    pts: list[int | None]
    size: tuple[int, int]


@runtime_checkable  # for the type checks of the tests
class Detector(Protocol):
    """What finds cuts in frames that it is shown one after the other."""

    def see(self, index: int, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """Look at a frame, reduced to at most ``LOOK_WIDTH`` pixels across."""
        ...

    def cuts(self) -> list[int]:
        """The first frames of new shots, once every frame has been seen."""
        ...


def find_shots(
    video: Path | str, *, detector: DetectorName = "adaptive", progress: Callable[[int], None] = lambda _: None
) -> list[Shot]:
    """The shots of a video file: in order, without gaps, from the first frame to the last.

    ``progress`` is told the number of frames seen. Raises ``MediaError`` if any part of the file cannot be decoded, and
    ``DataError`` if PySceneDetect is not installed, or ``AssetError`` if TransNetV2's weights are not here.
    """
    return survey(video, detector=detector, progress=progress).shots


def survey(
    video: Path | str, *, detector: DetectorName = "adaptive", progress: Callable[[int], None] = lambda _: None
) -> Survey:
    """As ``find_shots``, with the times of the frames."""
    finder = AdaptiveCuts() if detector == "adaptive" else TransNetCuts()
    pts: list[int | None] = []
    size = (0, 0)
    for index, (picture, small) in enumerate(converted(stream_pictures(video), lambda p: p.pixels(LOOK_WIDTH))):
        finder.see(index, small)
        pts.append(picture.pts)
        size = size if index else picture.seen
        progress(index + 1)
    edges = [0, *finder.cuts(), len(pts)]
    shots = [Shot(first=first, frames=end - first) for first, end in pairwise(edges) if end > first]
    return Survey(shots=shots, pts=pts, size=size)


class AdaptiveCuts:
    """PySceneDetect's detector on frames of at most 256 pixels across."""

    def __init__(self) -> None:
        try:
            from scenedetect import AdaptiveDetector, FrameTimecode
        except ImportError as error:
            raise DataError(
                f'Finding the shots of a video needs PySceneDetect ({error}). Install it: pip install "openltx[data]"'
            ) from error
        self._detector = AdaptiveDetector(
            adaptive_threshold=ADAPTIVE_THRESHOLD, min_content_val=MIN_CHANGE, window_width=2, min_scene_len=1
        )
        self._at: Callable[[int], Any] = lambda index: FrameTimecode(index, fps=24.0)  # only the numbers matter here
        self._cuts: list[int] = []

    def see(self, index: int, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        blue_first = np.ascontiguousarray(frame[..., ::-1])  # as OpenCV has it
        self._cuts += [cut.frame_num for cut in self._detector.process_frame(self._at(index), blue_first)]

    def cuts(self) -> list[int]:
        return self._cuts


class TransNetCuts:
    """TransNetV2 on frames of 48 x 27 pixels, of which all are kept: 4 kB each."""

    def __init__(self) -> None:
        from openltx.checkpoints.assets import load_transnet

        self._network = load_transnet()
        self._frames: list[UInt8[np.ndarray, "27 48 3"]] = []

    def see(self, index: int, frame: UInt8[np.ndarray, "H W 3"]) -> None:  # noqa: ARG002 (of the protocol)
        from PIL import Image

        from openltx.models.transnet import HEIGHT, WIDTH

        small = Image.fromarray(frame).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        self._frames.append(np.array(small))

    def cuts(self) -> list[int]:
        import torch

        if not self._frames:
            return []
        return cuts_of(self._network.probabilities(torch.from_numpy(np.stack(self._frames))).numpy())


def cuts_of(probabilities: np.ndarray) -> list[int]:
    """The first frame of each new shot: after the middle of every run of frames whose probability is above 0.5."""
    above = np.concatenate([[False], probabilities > PROBABLE, [False]])
    begins, ends = np.flatnonzero(~above[:-1] & above[1:]), np.flatnonzero(above[:-1] & ~above[1:])
    return [int((begin + end - 1) // 2 + 1) for begin, end in zip(begins, ends, strict=True)]
