"""Latents and caption states of one's own videos, each computed once: what fine-tuning trains on.

A cache folder with a file for each video, named after all that its content depends on: the bytes of the video and of
its reference, caption, size, frames, and the weights of both encoders. So a stopped run goes on, what has changed is
computed anew, and what is stale is never read.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor

from openltx.checkpoints.fingerprint import file_sha256, fingerprint
from openltx.checkpoints.single_file import write_tensors
from openltx.data.captioned import CaptionedVideo
from openltx.data.sources import Rejection
from openltx.errors import DataError, MediaError
from openltx.geometry import VideoShape
from openltx.media.io import probe, read_image
from openltx.media.stream import stream_video
from openltx.media.transforms import resize_cover, to_tensor
from openltx.models.text import TextEncoder
from openltx.models.vae.autoencoder import VideoAutoencoder

PICTURE_FPS = 24.0  # a picture has no rate, and its one frame is at 0 s in any
CAPTIONS_AT_ONCE = 64  # T5 reads all its weights for each call


@dataclass(frozen=True, kw_only=True)
class Size:
    """What videos are made to be: ``width`` x ``height``, multiples of 32, and at most ``frames``, 8k + 1."""

    width: int
    height: int
    frames: int

    def __post_init__(self) -> None:
        VideoShape(frames=self.frames, height=self.height, width=self.width, fps=1.0).require_on_grid()


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One video: normalised latents, the token states of its caption, and its reference's latents if it has one."""

    latents: Float[Tensor, "c f h w"]
    text: Float[Tensor, "l e"]
    fps: float
    caption: str
    source: CaptionedVideo
    reference: Float[Tensor, "c f h w"] | None = None


def encode_videos(
    videos: Sequence[CaptionedVideo],
    cache: Path,
    vae: VideoAutoencoder,
    text: TextEncoder,
    sizes: Sequence[Size],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[list[Encoded], list[Rejection]]:
    """The latents of every video that can be used, and why others cannot.

    Each gets the size nearest to its own shape, is scaled to cover it and cut at its centre, and gives its first 8k + 1
    frames. Raises ``DataError`` if none can be used.
    """
    cache.mkdir(parents=True, exist_ok=True)
    encoders = (fingerprint(vae), str(getattr(text, "fingerprint", text.name)))
    jobs: list[_Job] = []
    found: list[Encoded] = []
    rejected: list[Rejection] = []
    for video in videos:
        try:
            jobs.append(_job(video, cache, sizes, encoders))
        except MediaError as error:
            rejected.append(Rejection(source=str(video.path), reason=str(error)))
    states = _states(text, [job.video.caption for job in jobs if not job.path.is_file()])
    for done, job in enumerate(jobs, start=1):
        try:
            found.append(_encoded(job, states, vae))
        except MediaError as error:
            rejected.append(Rejection(source=str(job.video.path), reason=str(error)))
        progress(done, len(jobs))
    if not found:
        raise DataError(f"None of the {len(videos)} videos can be used. The first: {rejected[0].reason}")
    return found, rejected


@dataclass(frozen=True)
class _Job:
    """A video, what it is made to be, and the cache's file for it."""

    video: CaptionedVideo
    size: Size
    frames: int
    fps: float
    path: Path


def _job(video: CaptionedVideo, cache: Path, sizes: Sequence[Size], encoders: tuple[str, str]) -> _Job:
    shape = _shape_of(video)
    size = min(sizes, key=lambda size: abs(np.log(size.width / size.height) - np.log(shape.width / shape.height)))
    frames = min(size.frames, (shape.frames - 1) // 8 * 8 + 1)
    hashes = [file_sha256(path) for path in (video.path, video.reference) if path is not None]
    key = json.dumps([*hashes, video.caption, size.width, size.height, frames, *encoders])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    return _Job(video, size, frames, shape.fps, cache / name)


def _encoded(job: _Job, states: Mapping[str, Tensor], vae: VideoAutoencoder) -> Encoded:
    if not job.path.is_file():
        video = job.video
        tensors = {"text": states[video.caption], "latents": _latents(video.path, job, vae)}
        if video.reference is not None:
            tensors["reference"] = _latents(video.reference, job, vae)
        write_tensors(job.path, tensors, {"video": video.path.name, "caption": video.caption})
    return Encoded(fps=job.fps, caption=job.video.caption, source=job.video, **load_file(job.path))


def _states(text: TextEncoder, captions: Sequence[str]) -> dict[str, Float[Tensor, "l e"]]:
    """The token states of each different caption, without padding."""
    states: dict[str, Tensor] = {}
    different = list(dict.fromkeys(captions))
    for first in range(0, len(different), CAPTIONS_AT_ONCE):
        some = different[first : first + CAPTIONS_AT_ONCE]
        context = text.encode(some)
        for caption, row, mask in zip(some, context.embeddings, context.mask, strict=True):
            states[caption] = row[mask].to("cpu", torch.bfloat16).contiguous()
    return states


def _shape_of(video: CaptionedVideo) -> VideoShape:
    if video.is_picture:
        height, width, _ = read_image(video.path).shape
        return VideoShape(frames=1, height=height, width=width, fps=PICTURE_FPS)
    return probe(video.path)


@torch.inference_mode()
def _latents(path: Path, job: _Job, vae: VideoAutoencoder) -> Float[Tensor, "c f h w"]:
    weight, size = next(vae.parameters()), job.size
    pixels = np.stack([resize_cover(frame, size.height, size.width) for frame in _first_frames(path, job.frames)])
    latents = vae.encode(to_tensor(pixels)[None].to(weight.device, weight.dtype))[0]
    return latents.to("cpu", torch.bfloat16).contiguous()


def _first_frames(path: Path, count: int) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    if CaptionedVideo(path=path, caption="").is_picture:
        found = [read_image(path)]
    else:
        frames = itertools.islice(stream_video(path), count)
        found = [frame for _, frame in frames if frame is not None]
    if len(found) < count:
        raise MediaError(f"{path} has {len(found)} frames, and {count} are needed.")
    return found
