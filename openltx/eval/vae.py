"""How well an autoencoder keeps clips, at one or several noise levels of its decoder, beside plain downsampling.

Each clip is encoded once, to the posterior's mean; the decoder is given these latents with fresh noise of
``noise_scale`` and told the timestep ``t``, as in generation (paper sections 2.1.1 and 3.1). Every clip has its own
noise, seeded by its place in the list and the same at every level. ``comparison`` says what is measured of each clip;
the frames' features are collected too, for the Frechet distance (`frechet`). The training loss uses LPIPS on VGG16,
so AlexNet is the less partial judge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openltx.data.manifest import Clip
from openltx.errors import RequestError
from openltx.eval.baseline import Downsampling, Size, best_downsampling, latent_numbers, resample, size_of
from openltx.eval.clips import read_on_grid
from openltx.eval.comparison import Networks, Similarity, compare
from openltx.eval.frechet import frame_features
from openltx.eval.motion import flicker, moving_region
from openltx.media.contact_sheet import evenly_spaced
from openltx.media.transforms import to_tensor
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder

Features = Float[np.ndarray, "_ d"]
Progress = Callable[[int, int], None]

DEFAULT_T = (0.05,)
MOST_SEARCH_CLIPS = 16  # the baseline is chosen on so many clips, evenly spaced, and measured on all


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to reconstruct and measure."""

    t: tuple[float, ...] = DEFAULT_T
    """Noise levels that the decoder is told, one or several."""
    noise_scale: float | None = None
    """How much fresh noise the latents get, if other than t."""
    frames: int | None = None
    """At most so many frames of each clip."""
    every: int = 4
    """SSIM, LPIPS and the Frechet distance look at every so many frames."""
    seed: int = 0
    """Of the choice of clips and of the noise."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise RequestError(f"Every {self.every}th frame was asked for; 1 looks at all of them, 4 at a quarter.")


@dataclass(frozen=True, kw_only=True)
class Level:
    """A noise level of the decoder; both None for a decoder that is not told any."""

    t: float | None
    noise_scale: float | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one way of restoring gave: each clip's similarity, and the features of the frames looked at."""

    similarities: tuple[Similarity, ...]
    features: Features | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was measured on ``clips``: an outcome for each level, and one for the baseline if it was asked for."""

    clips: tuple[Clip, ...]
    size: Size  # of the first clip, as it was measured
    latent_numbers: int  # of the first clip
    levels: tuple[tuple[Level, Outcome], ...]
    baseline: tuple[Downsampling, Outcome] | None
    features: Features | None  # of the originals
    still_flicker: tuple[float | None, ...]  # of each clip: what its first frame, held, would get
    moving_share: tuple[float, ...]  # of each clip's pixels


def evaluate(
    vae: VideoAutoencoder,
    data: Path,
    clips: Sequence[Clip],
    settings: Settings,
    networks: Networks | None = None,
    *,
    downsampling: Downsampling | None = None,
    progress: Progress = lambda *_: None,
) -> Evaluation:
    """Restore and compare every clip under the folder ``data``; ``progress`` gets (done, total).

    Raises RequestError for noise levels that the decoder cannot take.
    """
    networks = networks or Networks()
    levels = levels_of(vae.config, settings)
    rows, originals, sizes, still, moving = [], [], [], [], []
    for index, clip in enumerate(clips):
        video = read_clip(data, clip, vae.config, settings)
        restored = [*reconstruct(vae, video, levels, noise_seed(settings, index))]
        if downsampling is not None:
            budget = latent_numbers(vae.config, size_of(video))
            restored.append(resample(video, downsampling.size(size_of(video), budget)))
        rows.append([_look_at(output, video, networks, settings.every) for output in restored])
        originals.append(_features(video, networks, settings.every))
        sizes.append(size_of(video))
        still.append(flicker(video[:, :1].expand_as(video), video))
        moving.append(moving_region(video).float().mean().item())
        progress(index + 1, len(clips))
    outcomes = [_outcome(column) for column in zip(*rows, strict=True)]
    return Evaluation(
        clips=tuple(clips),
        size=sizes[0],
        latent_numbers=latent_numbers(vae.config, sizes[0]),
        levels=tuple(zip(levels, outcomes[: len(levels)], strict=True)),  # the baseline's outcome comes last
        baseline=None if downsampling is None else (downsampling, outcomes[-1]),
        features=_joined(originals),
        still_flicker=tuple(still),
        moving_share=tuple(moving),
    )


def levels_of(config: VAEConfig, settings: Settings) -> list[Level]:
    """The noise levels to measure at; RequestError for levels outside [0, 1], or that this decoder does not take."""
    if not config.timestep_conditioning:
        if settings.t != DEFAULT_T or settings.noise_scale is not None:
            raise RequestError(
                "This VAE's decoder is not conditioned on a timestep, so there are no noise levels to measure at. "
                "Leave --t and --noise-scale out."
            )
        return [Level(t=None, noise_scale=None)]
    asked = [*settings.t, *([] if settings.noise_scale is None else [settings.noise_scale])]
    if not settings.t or not all(0 <= value <= 1 for value in asked):
        raise RequestError(
            f"Noise levels lie between 0 and 1, and at least one is needed; {asked} were asked for. The decoders of "
            "LTX-Video have learned 0 to 0.2."
        )
    scale = settings.noise_scale
    return [Level(t=t, noise_scale=t if scale is None else scale) for t in settings.t]


@torch.inference_mode()
def reconstruct(
    vae: VideoAutoencoder, video: Float[Tensor, "3 F H W"], levels: Sequence[Level], seed: int
) -> list[Float[Tensor, "3 F H W"]]:
    """The video through the encoder once and the decoder at each level, clamped to [-1, 1]."""
    weight = next(vae.parameters())
    latents = vae.encode(video[None].to(weight.device, weight.dtype))
    outputs = []
    for level in levels:
        generator = torch.Generator().manual_seed(seed)
        decoded = vae.decode(latents, t=level.t, noise_scale=level.noise_scale, generator=generator)
        outputs.append(decoded[0].float().cpu().clamp(-1, 1))
    return outputs


def search_downsampling(
    config: VAEConfig, data: Path, clips: Sequence[Clip], settings: Settings, progress: Progress = lambda *_: None
) -> Downsampling:
    """The best bicubic way to keep as many numbers as the VAE's latents, judged on at most 16 of the clips."""
    chosen = [clips[i] for i in evenly_spaced(len(clips), MOST_SEARCH_CLIPS)]
    return best_downsampling(
        (read_clip(data, clip, config, settings) for clip in chosen),
        lambda size: latent_numbers(config, size),
        progress=lambda done: progress(done, len(chosen)),
    )


def read_clip(data: Path, clip: Clip, config: VAEConfig, settings: Settings) -> Float[Tensor, "3 F H W"]:
    """A clip as it is measured, in [-1, 1]: cut to the VAE's grid, and to ``settings.frames``."""
    return to_tensor(read_on_grid(data / clip.path, settings.frames, config.compression))


def noise_seed(settings: Settings, index: int) -> int:
    """The seed of the noise of the clip at place ``index``."""
    return settings.seed * 1_000_003 + index


def _look_at(restored: Tensor, video: Tensor, networks: Networks, every: int) -> tuple[Similarity, Features | None]:
    return compare(restored, video, networks, every=every), _features(restored, networks, every)


def _features(video: Tensor, networks: Networks, every: int) -> Features | None:
    return None if networks.mobilenet is None else frame_features(networks.mobilenet, video[:, ::every])


def _outcome(column: Sequence[tuple[Similarity, Features | None]]) -> Outcome:
    return Outcome(similarities=tuple(s for s, _ in column), features=_joined([found for _, found in column]))


def _joined(features: Sequence[Features | None]) -> Features | None:
    known = [found for found in features if found is not None]
    return np.concatenate(known) if known else None
