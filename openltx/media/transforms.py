"""Between files and the model: frames are uint8 ``F H W 3``, the model's video is float ``3 F H W`` in [-1, 1]."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

_GREY = 128  # what padding is filled with: the uint8 next to 0 in [-1, 1]


def to_tensor(frames: UInt8[np.ndarray, "F H W 3"]) -> Float[Tensor, "3 F H W"]:
    """Frames as float32 in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).to(torch.float32)
    return rearrange(video, "F H W c -> c F H W").contiguous() / 127.5 - 1


def to_frames(video: Float[Tensor, "3 F H W"]) -> UInt8[np.ndarray, "F H W 3"]:
    """A video in [-1, 1] as frames, rounded to the nearest level; values outside are clamped. Undoes ``to_tensor``."""
    _, frames, height, width = video.shape
    levels = np.empty((frames, height, width, 3), np.uint8)
    for frame, to in zip(video.detach().unbind(1), levels, strict=True):  # one by one, to need less memory
        exact = frame.float().add(1).mul_(127.5).round_().clamp_(0, 255)
        to[...] = rearrange(exact.to(torch.uint8), "c H W -> H W c").cpu().numpy()
    return levels


def resize_cover(frame: UInt8[np.ndarray, "_ _ 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """A frame scaled, bicubic with antialiasing, until it just covers ``height x width``, and cut at its centre."""
    scale = max(height / frame.shape[0], width / frame.shape[1])
    covering = [max(round(frame.shape[0] * scale), height), max(round(frame.shape[1] * scale), width)]
    if covering != list(frame.shape[:2]):
        pixels = torch.tensor(frame).permute(2, 0, 1)[None]  # colours side by side: torch has a quick kernel for it
        frame = F.interpolate(pixels, covering, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(crop_to(frame[None], height, width)[0])


def resize(video: Float[Tensor, "*b c F _ _"], height: int, width: int) -> Float[Tensor, "*b c F {height} {width}"]:
    """A video stretched to ``height x width``, bilinear and without antialiasing, as the official pipeline does it."""
    if video.shape[-2:] == (height, width):
        return video
    frames = video.reshape(-1, 1, *video.shape[-2:])
    return F.interpolate(frames, (height, width), mode="bilinear").reshape(*video.shape[:-2], height, width)


def pad_to(frame: UInt8[np.ndarray, "_ _ 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """A frame in the middle of a mid-grey one of ``height x width``; an odd row or column goes below or right.

    The size must hold the frame. ``crop_to`` undoes it.
    """
    rows, columns = height - frame.shape[0], width - frame.shape[1]
    assert min(rows, columns) >= 0, f"a frame of {frame.shape[:2]} does not fit in {(height, width)}"
    sides = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return np.pad(frame, sides, constant_values=_GREY)


def crop_to(frames: UInt8[np.ndarray, "F _ _ 3"], height: int, width: int) -> UInt8[np.ndarray, "F {height} {width} 3"]:
    """The middle ``height x width`` of every frame: what ``pad_to`` put there."""
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    assert min(top, left) >= 0, f"frames of {frames.shape[1:3]} hold no {(height, width)}"
    return frames[:, top : top + height, left : left + width]
