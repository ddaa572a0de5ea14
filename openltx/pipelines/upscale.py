"""Latents made larger by a released upscaler, and videos that are made larger without a second pass.

    latents -> un-normalised -> LatentUpsampler -> normalised -> AdaIN against what went in

``pipelines.two_pass`` refines what comes out with the transformer, as the releases do. ``upscale`` only decodes it:
that needs no transformer and no prompt, and is quick.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import openltx
from openltx.checkpoints.fingerprint import file_sha256
from openltx.checkpoints.load import load_upsampler
from openltx.checkpoints.upsampler import upsampler_source
from openltx.errors import CheckpointError
from openltx.flow.adain import adain
from openltx.geometry import VideoShape
from openltx.kernels.volume import lay_out_kernels
from openltx.media.io import is_picture, probe, read_image, read_video, write_video
from openltx.media.transforms import crop_to, pad_to, to_frames, to_tensor
from openltx.models.upsampler import LatentUpsampler
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.models.vae.streaming import decode_stream
from openltx.pipelines.request import Fit, Sampling


@dataclass(frozen=True, kw_only=True)
class Upscaler:
    """A latent upsampler, loaded and named; ``fingerprint`` are 16 digits of the SHA-256 of its file."""

    name: str
    network: LatentUpsampler
    fingerprint: str = ""


def load_upscaler(path: str | Path, vae: VideoAutoencoder) -> Upscaler:
    """An upscaler from its official file or a diffusers folder, where the VAE is and in its number format.

    Raises ``CheckpointError`` if it is none, or one for latents of another depth.
    """
    path = Path(path)
    config, tensors = upsampler_source(path)
    if config.in_channels != vae.config.latent_channels:
        raise CheckpointError(
            f"The upscaler {path} is for latents of {config.in_channels} channels, and this model's have "
            f"{vae.config.latent_channels}. Use an upscaler and a model of the same family."
        )
    statistics = vae.per_channel_statistics.mean
    network = load_upsampler(path, statistics.dtype, statistics.device).requires_grad_(False)
    lay_out_kernels(network)
    files = sorted({stored.file for stored in tensors.values()})
    return Upscaler(name=path.stem, network=network, fingerprint="-".join(file_sha256(file)[:16] for file in files))


@torch.inference_mode()
def enlarge(
    upscaler: Upscaler, vae: VideoAutoencoder, latents: Float[Tensor, "b c f h w"], adain_factor: float = 1.0
) -> Float[Tensor, "b c f2 h2 w2"]:
    """Normalised latents enlarged; ``adain_factor`` 1 gives each channel back its mean and contrast, 0 leaves them."""
    weight = upscaler.network.final_conv.weight
    raw = vae.unnormalise(latents).to(weight.device, weight.dtype)
    larger = vae.normalise(upscaler.network(raw).to(latents))
    return adain(larger, latents, adain_factor)


@dataclass(frozen=True, kw_only=True)
class UpscaledVideo:
    """An enlarged video: ``frames`` (F H W 3) uint8; ``metadata`` says what it was made of and how."""

    frames: UInt8[np.ndarray, "F H W 3"]
    fps: float
    metadata: Mapping[str, str]

    def save(self, path: Path | str) -> Sequence[Path]:
        """Write to ``path`` by its suffix, whole or not at all; gives the files written. Raises ``MediaError``."""
        return write_video(path, self.frames, self.fps, self.metadata)


@torch.inference_mode()
def upscale(
    vae: VideoAutoencoder,
    upscaler: Upscaler,
    video: Path | str,
    *,
    fps: float | None = None,
    fit: Fit = "exact",
    adain_factor: float = 1.0,
    decode_timestep: float = Sampling().decode_timestep,
    decode_noise_scale: float = Sampling().decode_noise_scale,
    seed: int = 0,
) -> UpscaledVideo:
    """A video or picture of twice the size, or of 2F - 1 frames, by encoder, upsampler and decoder alone.

    fps                 frames a second of the result. Left out, it lasts as long as before: a temporal upscaler doubles
                        the rate. The old rate with twice the frames is slow motion
    fit                 "exact" refuses sides off the 32-pixel grid and frames other than 8k + 1; "pad" pads the sides
                        with grey that is cut off again, and leaves the last frames out
    adain_factor        see ``enlarge``
    decode_timestep, decode_noise_scale, seed
                        the decoder's noise level and the fresh noise for it; of no effect for a VAE of 0.9.0

    Raises ``RequestError`` for a size that cannot be coded, ``MediaError`` for a file that cannot be read.
    """
    started = time.perf_counter()
    source = source_shape(video, fit)
    latents = encoded(vae, video, source)
    larger = enlarge(upscaler, vae, latents, adain_factor)

    noise = torch.Generator().manual_seed(seed)
    t = decode_timestep if vae.config.timestep_conditioning else None
    goal = result_shape(upscaler, source)
    pieces = decode_stream(vae, larger.to(latents.dtype), t, decode_noise_scale, 0.0, noise)
    frames = [crop_to(to_frames(piece[0].float()), goal.height, goal.width) for piece in pieces]
    metadata = {
        "upscaled": str(video),
        "upscaler": upscaler.name,
        "upscaler_fingerprint": upscaler.fingerprint,
        "adain_factor": f"{adain_factor:g}",
        "decode_timestep": f"{decode_timestep:g}",
        "decode_noise_scale": f"{decode_noise_scale:g}",
        "seed": str(seed),
        "openltx": openltx.__version__,
        "seconds_taken": f"{time.perf_counter() - started:.2f}",
    }
    return UpscaledVideo(frames=np.concatenate(frames), fps=fps or goal.fps, metadata=metadata)


def source_shape(video: Path | str, fit: Fit) -> VideoShape:
    """How much of a file is enlarged; raises ``RequestError`` if it is off the grid and must not be made to fit."""
    if is_picture(video):
        height, width, _ = read_image(video).shape
        shape = VideoShape(frames=1, height=height, width=width, fps=Sampling().fps)
    else:
        shape = probe(video)
    if fit == "exact":
        shape.require_on_grid()
    return replace(shape, frames=(shape.frames - 1) // 8 * 8 + 1)


def result_shape(upscaler: Upscaler, source: VideoShape) -> VideoShape:
    """Size and rate of the enlarged video: it lasts as long as the ``source``, from the first frame to the last."""
    config = upscaler.network.config
    side, pace = 2 if config.spatial_upsample else 1, 2 if config.temporal_upsample else 1
    return VideoShape(
        frames=pace * (source.frames - 1) + 1,
        height=side * source.height,
        width=side * source.width,
        fps=pace * source.fps,
    )


@torch.inference_mode()
def encoded(vae: VideoAutoencoder, video: Path | str, shape: VideoShape) -> Float[Tensor, "1 c f h w"]:
    """The normalised latents of a file's first frames, of the size in ``shape``, padded to the grid with mid-grey."""
    padded = shape.padded()
    frames = read_image(video)[None] if is_picture(video) else read_video(video, 0, shape.frames)[0]
    pixels = to_tensor(np.stack([pad_to(frame, padded.height, padded.width) for frame in frames]))
    statistics = vae.per_channel_statistics.mean
    return vae.encode(pixels[None].to(statistics.device, statistics.dtype))
