"""All numbers of one video against another: pixels (`metrics`), motion (`motion`) and perception (LPIPS)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.eval.metrics import frame_lpips, frame_psnr, frame_ssim, psnr
from openltx.eval.motion import flicker, motion_psnr
from openltx.models.lpips import LPIPS
from openltx.models.mobilenet import MobileNetV2


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The trained networks that look at videos; None where weights are not here, and what they give is None too."""

    lpips_alex: LPIPS | None = None
    lpips_vgg: LPIPS | None = None
    mobilenet: MobileNetV2 | None = None


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """One video against its original: the whole, and the first frame by itself (what image-to-video holds on to)."""

    psnr: float
    ssim: float
    lpips_alex: float | None
    lpips_vgg: float | None
    flicker: float | None
    motion_psnr: float | None
    first_psnr: float
    first_ssim: float
    first_lpips_alex: float | None
    first_lpips_vgg: float | None
    frame_psnr: tuple[float, ...]


@torch.inference_mode()
def compare(
    restored: Float[Tensor, "3 F H W"],
    original: Float[Tensor, "3 F H W"],
    networks: Networks | None = None,
    *,
    every: int = 1,
) -> Similarity:
    """All numbers of one pair. SSIM and LPIPS, which are slow, look at every ``every``-th frame from the first on."""
    networks = networks or Networks()
    some_restored, some_original = restored[:, ::every], original[:, ::every]
    ssim = frame_ssim(some_restored, some_original)
    alex, alex_first = _lpips(networks.lpips_alex, some_restored, some_original)
    vgg, vgg_first = _lpips(networks.lpips_vgg, some_restored, some_original)
    per_frame = frame_psnr(restored, original)
    return Similarity(
        psnr=psnr(restored, original),
        ssim=ssim.mean().item(),
        lpips_alex=alex,
        lpips_vgg=vgg,
        flicker=flicker(restored, original),
        motion_psnr=motion_psnr(restored, original),
        first_psnr=per_frame[0].item(),
        first_ssim=ssim[0].item(),
        first_lpips_alex=alex_first,
        first_lpips_vgg=vgg_first,
        frame_psnr=tuple(per_frame.tolist()),
    )


def _lpips(lpips: LPIPS | None, a: Tensor, b: Tensor) -> tuple[float | None, float | None]:
    """The mean over the frames, and the first frame's."""
    if lpips is None:
        return None, None
    distances = frame_lpips(lpips, a, b)
    return distances.mean().item(), distances[0].item()
