"""Where a film is cut: the shots that a camera, or an animator, took without interruption.

Cuts are found by PySceneDetect's ``AdaptiveDetector``: the change of hue, saturation and lightness from frame to frame
must be at least 15 levels, and 2.5 times that of the two frames before and after, so that fast motion is no cut. A
slow dissolve or fade is not found: its two sides are one shot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from openltx.errors import DataError
from openltx.media.stream import stream_video

ADAPTIVE_THRESHOLD, MIN_CHANGE = 2.5, 15.0
LOOK_WIDTH = 256  # pixels across of the frames that are compared


@dataclass(frozen=True, kw_only=True)
class Shot:
    """``frames`` frames of a video from frame ``first`` on."""

    first: int
    frames: int


def find_shots(video: Path | str, *, progress: Callable[[int], None] = lambda _: None) -> list[Shot]:
    """The shots of a video file: in order, without gaps, from the first frame to the last.

    ``progress`` is told the number of frames seen. Raises ``MediaError`` if any part of the file cannot be decoded, and
    ``DataError`` if PySceneDetect is not installed.
    """
    detector, at = _detector()
    cuts, count = [0], 0
    for index, frame in stream_video(video, max_width=LOOK_WIDTH):
        assert frame is not None
        blue_first = np.ascontiguousarray(frame[..., ::-1])  # as OpenCV has it
        cuts += [cut.frame_num for cut in detector.process_frame(at(index), blue_first)]
        count = index + 1
        progress(count)
    edges = [*cuts, count]
    return [Shot(first=first, frames=end - first) for first, end in pairwise(edges) if end > first]


def _detector() -> tuple[Any, Callable[[int], Any]]:
    """A fresh detector, and how it counts frames (at any constant rate: only the numbers matter here)."""
    try:
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        raise DataError(
            f'Finding the shots of a video needs PySceneDetect ({error}). Install it: pip install "openltx[data]"'
        ) from error
    detector = AdaptiveDetector(
        adaptive_threshold=ADAPTIVE_THRESHOLD, min_content_val=MIN_CHANGE, window_width=2, min_scene_len=1
    )
    return detector, lambda index: FrameTimecode(index, fps=24.0)
