"""What a video does over time, judged from the video alone. Definitions are those of VBench (Huang et al. 2024).

    temporal flickering   1 - mean |f[i+1] - f[i]| / 255. VBench asks for it on prompts of still scenes only: motion
                          lowers it as flicker does
    consistency           of features c of the frames: the mean over i >= 1 of
                          (cos(c[i], c[i-1]) + cos(c[i], c[0])) / 2, negative cosines counted as 0
    motion smoothness     every second frame is left out and interpolated from its neighbours:
                          1 - mean |interpolated - left out| / 255
    dynamic degree        frames are thinned out to about 8 a second; a pair moves if the fastest 5% of its pixels move
                          by more than 6 pixels on average (of a picture 256 wide), and a video is dynamic if a quarter
                          as many pairs move as it has frames. The mean over videos is the share of dynamic ones

VBench interpolates with the network AMT and takes its flow from RAFT. Here both come from DIS optical flow (Kroeger et
al. 2016, OpenCV), which has no weights; so the names end in ``_dis`` and values are not comparable with VBench's.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8

SAMPLED_FPS = 8.0
FASTEST_SHARE = 0.05
SPEED, SPEED_SIDE = 6.0, 256.0
MOVING_PAIRS = 4 / 16  # for each frame

Frames = UInt8[np.ndarray, "F H W 3"]


def temporal_flickering(frames: Frames) -> float | None:
    """1 for a still picture; None for a single frame."""
    if len(frames) < 2:
        return None
    differences = [np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames)]
    return 1 - float(np.mean(differences)) / 255


def consistency(features: Float[np.ndarray, "F d"]) -> float | None:
    """1 for features that stay the same; None for a single frame."""
    if len(features) < 2:
        return None
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    with_last, with_first = (unit[1:] * unit[:-1]).sum(1), unit[1:] @ unit[0]
    return float((np.maximum(with_last, 0) + np.maximum(with_first, 0)).mean()) / 2


def motion_smoothness(frames: Frames) -> float | None:
    """1 where every second frame lies between its neighbours; None for less than three frames."""
    errors = [
        np.abs(between(frames[i - 1], frames[i + 1]) - frames[i].astype(np.float32)).mean()
        for i in range(1, len(frames) - 1, 2)
    ]
    return 1 - float(np.mean(errors)) / 255 if errors else None


def dynamic_degree(frames: Frames, fps: float) -> float | None:
    """1.0 if the video is dynamic, else 0.0; None for less than two frames at the thinned-out rate."""
    thinned = frames[:: max(1, round(fps / SAMPLED_FPS))]
    if len(thinned) < 2:
        return None
    threshold = SPEED * min(frames.shape[1:3]) / SPEED_SIDE
    moving = sum(speed > threshold for speed in speeds(thinned))
    return float(moving >= max(1, round(MOVING_PAIRS * len(thinned))))


def speeds(frames: Frames) -> Iterator[float]:
    """For each pair of neighbours the mean motion, in pixels, of the twentieth of the pixels that move fastest."""
    for a, b in pairwise(frames):
        lengths = np.sort(np.linalg.norm(flow(a, b), axis=-1), axis=None)
        yield float(lengths[-max(1, int(FASTEST_SHARE * lengths.size)) :].mean())


def between(a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """The picture half way from one to another: both moved along half of the flow between them, and averaged."""
    import cv2

    forth, back = flow(a, b), flow(b, a)
    rows, columns = np.mgrid[: a.shape[0], : a.shape[1]].astype(np.float32)

    def moved(picture: np.ndarray, along: np.ndarray) -> np.ndarray:
        x, y = columns + along[..., 0], rows + along[..., 1]
        return cv2.remap(picture.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return (moved(a, back / 2) + moved(b, forth / 2)) / 2


def flow(a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 2"]:
    """DIS optical flow from one picture to another: how far each pixel moves right and down."""
    import cv2

    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (a, b)]
    return finder.calc(*grey, None)  # pyright: ignore[reportCallIssue, reportArgumentType] (the stubs forbid None)
