"""What moves: dense optical flow between neighbouring frames, and how the camera goes.

    speed     how far the fastest twentieth of the picture moves: the mean over the clip, in diagonals a second
    camera    how far textured parts move together: the mean, in diagonals a second
    jitter    by how much that changes from one frame to the next: the median, in diagonals a frame. A pan has little
    frozen    the longest time without any change, as a share of the clip

Frames that repeat the one before, as animation drawn "on twos" has them, count for ``frozen`` alone.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import UInt8

from openltx.data.prepare.records import Measures
from openltx.data.prepare.settings import MotionSettings
from openltx.data.prepare.stage import Look, rounded

SAME = 0.35  # grey levels, in the mean, by which compressed copies of one frame may differ
FROZEN_MEAN, FROZEN_PEAK = 1.0, 10.0  # the same while a standstill goes on, over key frames; the peak is the 99.5 %
TEXTURED = 80  # percentile of the gradient above which a pixel tells motion


@dataclass(frozen=True)
class Motion:
    """Measures motion with OpenCV's DIS flow on small frames."""

    settings: MotionSettings
    name = "motion"

    def measure(self, look: Look) -> Measures:
        import cv2

        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in look.small]
        diagonal = float(np.hypot(*grey[0].shape)) if grey else 1.0
        still = [float(cv2.absdiff(a, b).mean()) < SAME for a, b in pairwise(grey)]
        moving = [pair for pair, same in zip(pairwise(grey), still, strict=True) if not same]
        finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        speeds, camera = [], []
        for before, after in moving:
            flow = finder.calc(before, after, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
            speeds.append(np.percentile(np.hypot(flow[..., 0], flow[..., 1]), 95) / diagonal)
            camera.append(np.median(flow[_textured(before)], axis=0) / diagonal)
        pairs = max(len(still), 1)
        path = np.array(camera) if camera else np.zeros((0, 2))
        steps = np.hypot(*np.diff(path, axis=0).T) if len(path) > 1 else np.zeros(1)
        return {
            "speed": rounded(sum(speeds) / pairs * look.fps),
            "camera": rounded(np.hypot(*path.T).sum() / pairs * look.fps),
            "jitter": rounded(np.median(steps)),
            "frozen": rounded(_standstill(grey) / pairs),
        }

    def objection(self, measures: Measures) -> str | None:
        limits = self.settings
        if measures["speed"] < limits.min_speed:
            return f"static: {measures['speed']:.3g} diagonals a second"
        if measures["frozen"] > limits.max_frozen:
            return f"frozen for {measures['frozen']:.0%} of it"
        if measures["jitter"] > limits.max_jitter:
            return f"jittery: {measures['jitter']:.3g} diagonals a frame"
        return None


def _textured(grey: UInt8[np.ndarray, "h w"]) -> np.ndarray:
    """Where the picture has edges or texture, whose motion can be seen."""
    import cv2

    across, down = (cv2.Sobel(grey, cv2.CV_16S, dx, 1 - dx).astype(np.int32) for dx in (1, 0))
    strength = across**2 + down**2  # of whole numbers: cv2.magnitude differs in the last bit from call to call
    return strength >= max(float(np.percentile(strength, TEXTURED)), 1.0)


def _standstill(grey: list[UInt8[np.ndarray, "h w"]]) -> int:
    """The most frames in a row that repeat one frame, but for what compression makes of it."""
    import cv2

    longest = first = 0
    for place in range(1, len(grey)):
        change = cv2.absdiff(grey[first], grey[place])
        if change.mean() > FROZEN_MEAN or np.percentile(change, 99.5) > FROZEN_PEAK:
            first = place
        longest = max(longest, place - first)
    return longest
