"""How well the autoencoder keeps Playroom's held-out clips: PSNR, SSIM and LPIPS, at a stated decoder noise level.

Each clip is encoded to the posterior's mean; the decoder is given these latents with fresh noise of ``noise_scale``
and told the timestep ``t``, as in generation (paper sections 2.1.1 and 3.1). LPIPS uses AlexNet, because the training
loss uses VGG16. Every clip has its own noise, seeded by its place in the list.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL.Image import Image
from torch import Tensor

from openltx.data.manifest import Clip
from openltx.eval.metrics import Similarity, compare
from openltx.eval.report import markdown_table
from openltx.media.contact_sheet import contact_sheet
from openltx.media.io import read_video
from openltx.media.transforms import to_frames, to_tensor
from openltx.models.lpips import LPIPS
from openltx.models.vae.autoencoder import VideoAutoencoder

ERROR_GAIN = 4  # the error rows of the contact sheet show mid-grey plus four times the difference


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to reconstruct and measure."""

    t: float = 0.05
    """The noise level that the decoder is told."""
    noise_scale: float = 0.05
    """How much fresh noise the latents get."""
    frames: int | None = None
    """At most so many frames of each clip."""
    every: int = 4
    """SSIM and LPIPS look at every so many frames."""
    seed: int = 0
    """Of the choice of clips and of the noise."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One clip and what came back."""

    clip: Clip
    original: UInt8[np.ndarray, "F H W 3"]
    restored: UInt8[np.ndarray, "F H W 3"]
    similarity: Similarity


def evaluate(
    vae: VideoAutoencoder,
    data: Path,
    clips: list[Clip],
    settings: Settings,
    lpips: LPIPS | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Reconstruction]:
    """Reconstruct and compare every clip under the folder ``data``; ``progress`` gets (done, total)."""
    results = []
    for index, clip in enumerate(clips):
        frames = clip_frames(data / clip.path, settings.frames)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + index)
        video = to_tensor(frames)
        restored = reconstruct(vae, video, settings, generator)
        similarity = compare(restored, video, lpips, every=settings.every)
        results.append(Reconstruction(clip=clip, original=frames, restored=to_frames(restored), similarity=similarity))
        progress(index + 1, len(clips))
    return results


@torch.inference_mode()
def reconstruct(
    vae: VideoAutoencoder, video: Float[Tensor, "3 F H W"], settings: Settings, generator: torch.Generator
) -> Float[Tensor, "3 F H W"]:
    """The video through encoder and decoder, clamped to [-1, 1]."""
    weight = next(vae.parameters())
    latents = vae.encode(video[None].to(weight.device, weight.dtype))
    if vae.config.timestep_conditioning:
        decoded = vae.decode(latents, t=settings.t, noise_scale=settings.noise_scale, generator=generator)
    else:
        decoded = vae.decode(latents)
    return decoded[0].float().cpu().clamp(-1, 1)


def clip_frames(path: Path, frames: int | None) -> UInt8[np.ndarray, "F H W 3"]:
    """A clip's frames, cut to the largest 8k+1 that it has (and that ``frames`` allows)."""
    video, _ = read_video(path)
    available = len(video) if frames is None else min(frames, len(video))
    return video[: (available - 1) // 8 * 8 + 1]


def summarise(results: list[Reconstruction], settings: Settings, model: str) -> dict[str, Any]:
    """The report as JSON values: means over the clips, the first frame by itself, per frame, and per clip."""
    scores = [result.similarity for result in results]
    longest = max(len(score.frame_psnr) for score in scores)
    first = results[0].original
    return {
        "model": model,
        "clips": len(results),
        "size": f"{first.shape[2]}x{first.shape[1]}",
        **asdict(settings),
        "psnr": mean(score.psnr for score in scores),
        "ssim": mean(score.ssim for score in scores),
        "lpips_alex": mean_or_none([score.lpips for score in scores]),
        "first_frame": {
            "psnr": mean(score.first_psnr for score in scores),
            "ssim": mean(score.first_ssim for score in scores),
            "lpips_alex": mean_or_none([score.first_lpips for score in scores]),
        },
        "worst_psnr": min(score.psnr for score in scores),
        "psnr_per_frame": [
            mean(score.frame_psnr[i] for score in scores if len(score.frame_psnr) > i) for i in range(longest)
        ],
        "per_clip": [{"path": r.clip.path, "caption": r.clip.caption, **asdict(r.similarity)} for r in results],
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report's numbers as a small table and a line of per-frame PSNR."""
    first = report["first_frame"]
    table = markdown_table(
        ["held-out clips", "PSNR dB", "SSIM", "LPIPS (alex)"],
        [
            [f"all frames ({report['clips']} clips)", report["psnr"], report["ssim"], report["lpips_alex"]],
            ["first frame", first["psnr"], first["ssim"], first["lpips_alex"]],
        ],
    )
    per_frame = " ".join(f"{value:.1f}" for value in report["psnr_per_frame"])
    title = f"VAE of {report['model']}, {report['size']}, t = {report['t']}, noise_scale = {report['noise_scale']}"
    return f"{title}\n\n{table}\n\nPSNR per frame: {per_frame}\n"


def sheet(results: list[Reconstruction], rows: int = 8) -> Image:
    """Original, reconstruction and magnified error of the first ``rows`` clips."""
    lines = []
    for result in results[:rows]:
        difference = result.restored.astype(np.int16) - result.original
        error = np.clip(128 + ERROR_GAIN * difference, 0, 255).astype(np.uint8)
        lines.append((result.clip.caption, result.original))
        lines.append((f"reconstruction, {result.similarity.psnr:.1f} dB", result.restored))
        lines.append((f"error x{ERROR_GAIN}", error))
    return contact_sheet(lines)


def mean_or_none(values: list[float | None]) -> float | None:
    """The mean, or None where a value was not measured."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None
