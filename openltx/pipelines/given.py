"""What a request gives to see: pictures and clips from files, as latents and as conditioning items.

Every frame is scaled and cropped to the request's size, then padded to the grid with mid-grey, as the video is that is
cropped back in the end. Places and lengths are checked before anything is encoded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from openltx.conditioning import Given, Item, Kept, Reference, require_place
from openltx.errors import MediaError, RequestError
from openltx.geometry import VideoShape
from openltx.media.degrade import degraded
from openltx.media.io import is_picture, probe, read_image, read_video
from openltx.media.transforms import pad_to, resize_cover, to_tensor
from openltx.pipelines.request import GenerationRequest, Sampling

Encode = Callable[[Float[Tensor, "1 3 F H W"]], Float[Tensor, "1 c f h w"]]


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """A picture or clip, the frame at which it is shown, and how firmly it is held there.

    ``part`` says which frames of the file are taken, as in Python's slices: (-25, None) are the last 25.
    """

    path: Path
    frame: int
    strength: float = 1.0
    part: tuple[int | None, int | None] = (None, None)

    @staticmethod
    def parse(text: str, frames: int) -> "Keyframe":
        """From FILE@FRAME, FILE@FRAME:STRENGTH or FILE[FIRST:END]@FRAME.

        A negative FRAME counts from the end of a video of ``frames``, negative FIRST and END from the end of the file.
        """
        match = re.fullmatch(r"(.+?)(?:\[(-?\d+)?:(-?\d+)?\])?@(-?\d+)(?::(\d*\.?\d+))?", text)
        if match is None:
            raise RequestError(
                f'keyframes: "{text}" does not say where. Write FILE@FRAME or FILE@FRAME:STRENGTH, for example '
                "last.png@-1 or clip.mp4@16:0.8."
            )
        frame, strength = int(match[4]), float(match[5] or 1)
        if not 0 < strength <= 1:
            raise RequestError(f'keyframes: "{text}" has the strength {strength}; choose one above 0 and at most 1.')
        first, end = (None if edge is None else int(edge) for edge in match.group(2, 3))
        frame += frames if frame < 0 else 0
        return Keyframe(path=Path(match[1]), frame=frame, strength=strength, part=(first, end))

    def __str__(self) -> str:
        """What ``parse`` reads."""
        first, end = ("" if edge is None else str(edge) for edge in self.part)
        part = "" if self.part == (None, None) else f"[{first}:{end}]"
        return f"{self.path}{part}@{self.frame}:{self.strength:g}"


def keyframes_of(request: GenerationRequest, shape: VideoShape) -> list[Keyframe]:
    """The request's image, as a keyframe at frame 0, and its keyframes."""
    keyframes = [Keyframe.parse(text, shape.padded().frames) for text in request.keyframes]
    if request.image is None:
        return keyframes
    return [Keyframe(path=Path(request.image), frame=0, strength=request.image_strength), *keyframes]


def frames_of(keyframe: Keyframe) -> range:
    """The frames of its file that a keyframe takes; raises ``RequestError`` if it takes none."""
    taken = range(1 if is_picture(keyframe.path) else probe(keyframe.path).frames)[slice(*keyframe.part)]
    if not taken:
        raise RequestError(f'keyframes: "{keyframe}" takes no frame at all of its file. Give other ends.')
    return taken


def check_given(request: GenerationRequest, settings: Sampling) -> None:
    """Raise ``RequestError`` or ``MediaError`` for what is missing, too short or cannot be shown where it is wanted.

    Reads no more than the files' headers, so it needs no model and takes no time.
    """
    shape = settings.shape
    for keyframe in keyframes_of(request, shape):
        _frames_taken(keyframe, shape, request.fit == "pad")
    for path in (request.video, request.reference, request.mask):
        total = shape.padded().frames
        if path is None or (path == request.mask and is_picture(path)):
            continue
        length = 1 if is_picture(path) else probe(path).frames
        if length < total:
            raise MediaError(f"{path} is too short: it has {length} frames; {total} are needed for this video.")


def given_items(
    request: GenerationRequest, settings: Sampling, start: Float[Tensor, "1 c f h w"] | None, encode: Encode
) -> list[Item]:
    """The conditioning items of a request; ``start`` are the latents of its video, if it has one.

    Raises ``RequestError`` for keyframes that cannot be shown before any of them is encoded.
    """
    shape = settings.shape
    keyframes = keyframes_of(request, shape)
    parts = [_frames_taken(keyframe, shape, request.fit == "pad") for keyframe in keyframes]
    items: list[Item] = []
    for keyframe, part in zip(keyframes, parts, strict=True):
        pixels = _pixels(keyframe.path, part, shape, settings.image_crf)
        items.append(Given(latents=encode(pixels), frame=keyframe.frame, strength=keyframe.strength))
    if request.reference is not None:
        items.append(Reference(latents=encode(_pixels(Path(request.reference), _whole(shape), shape, 0))))
    if request.mask is not None:
        assert start is not None, "resolve refuses a mask without a video"
        items.append(Kept(latents=start, strength=1 - _mask(request.mask, shape)))
    return items


def start_latents(request: GenerationRequest, settings: Sampling, encode: Encode) -> Float[Tensor, "1 c f h w"]:
    """The latents of the request's ``video``, which must be as long as the video that is asked for."""
    shape = settings.shape
    return encode(_pixels(Path(request.video or ""), _whole(shape), shape, 0))


def _whole(shape: VideoShape) -> range:
    return range(shape.padded().frames)


def _frames_taken(keyframe: Keyframe, shape: VideoShape, trim: bool) -> range:
    """Which frames of a keyframe's file are given: 8k + 1 that fit behind its place. ``trim`` allows cutting."""
    total = shape.padded().frames
    taken = frames_of(keyframe)
    longest = (min(len(taken), total - keyframe.frame) - 1) // 8 * 8 + 1
    if not 0 <= keyframe.frame < total:
        raise RequestError(
            f"{keyframe.path} is to be shown at frame {keyframe.frame}, but the video has the frames 0 to {total - 1}."
        )
    if longest != len(taken) and not trim:
        raise RequestError(
            f"{keyframe.path} has {len(taken)} frames. At frame {keyframe.frame} of a video of {total} frames, "
            f'{longest} of them can be shown (8k + 1 that fit). Cut it, or let it be cut with fit="pad" (--fit pad).'
        )
    require_place(keyframe.frame, longest, total)
    return taken[:longest]


def _pixels(path: Path, part: range, shape: VideoShape, crf: int) -> Float[Tensor, "1 3 F H W"]:
    """The frames ``part`` of a file at the padded size, in [-1, 1]."""
    frames = read_image(path)[None] if is_picture(path) else read_video(path, part.start, len(part))[0]
    if len(frames) < len(part):
        raise MediaError(f"{path} has {len(frames)} frames; {len(part)} are needed for this video.")
    padded = shape.padded()
    fitted = [pad_to(resize_cover(frame, shape.height, shape.width), padded.height, padded.width) for frame in frames]
    pixels = np.stack(fitted)
    return to_tensor(degraded(pixels, crf) if crf else pixels)[None]


def _mask(path: Path | str, shape: VideoShape) -> Float[Tensor, "1 f h w"]:
    """Where a video is made anew, 0 to 1 a latent cell: the brightest pixel that the mask has in it."""
    padded = shape.padded()
    grid = padded.latent()
    frames: UInt8[np.ndarray, "F H W 3"] = (
        read_image(path)[None] if is_picture(path) else read_video(path, 0, padded.frames)[0]
    )
    fitted = [pad_to(resize_cover(frame, shape.height, shape.width), padded.height, padded.width) for frame in frames]
    grey = torch.from_numpy(np.stack(fitted)).float().mean(-1) / 255
    cells = F.adaptive_max_pool2d(grey[:, None], (grid.height, grid.width))[:, 0]
    if len(cells) == 1:
        return cells.expand(grid.frames, -1, -1)[None]
    later = cells[1:].unflatten(0, (grid.frames - 1, -1)).amax(1)  # the first latent frame is one frame, others eight
    return torch.cat([cells[:1], later])[None]
