"""How frames of videos look: softened and compressed.

Models that learned from compressed video take a flawless picture for a still one. So the official pipeline, from 0.9.1
on, blurs every given frame (Gaussian, 3 x 3 pixels, sigma 1) and codes it alone with H.264 before it is encoded.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

_SIDE = math.exp(-0.5)
_BLUR = ImageFilter.Kernel(
    (3, 3), [a * b for a in (_SIDE, 1, _SIDE) for b in (_SIDE, 1, _SIDE)], scale=(1 + 2 * _SIDE) ** 2
)


def degraded(frames: UInt8[np.ndarray, "F H W 3"], crf: int) -> UInt8[np.ndarray, "F H W 3"]:
    """Each frame by itself: blurred a little, coded as H.264 of quality ``crf`` (1 to 51), and back. Even sides."""
    return np.stack([_coded(np.array(Image.fromarray(frame).filter(_BLUR)), crf) for frame in frames])


def _coded(frame: UInt8[np.ndarray, "H W 3"], crf: int) -> UInt8[np.ndarray, "H W 3"]:
    import av

    coder: Any = av.CodecContext.create("libx264", "w")
    coder.height, coder.width = frame.shape[:2]
    coder.pix_fmt, coder.time_base = "yuv420p", Fraction(1, 25)
    coder.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
    packets = [*coder.encode(picture), *coder.encode(None)]
    decoder: Any = av.CodecContext.create("h264", "r")
    decoded = [image for packet in [*packets, None] for image in decoder.decode(packet)]
    return decoded[0].to_ndarray(format="rgb24")
