"""How well a video keeps what changes over time: flicker, and the error where the original moves.

Videos are `3 F H W` in [-1, 1]; values outside are clamped first. A mean over all pixels hardly sees motion: a small
object that is smeared or lost costs little where the background is right. So two numbers look at time alone.

    flicker       mean |(r[f+1] - r[f]) - (x[f+1] - x[f])| in 1/255, of a reconstruction r of x. An error that stays
                  the same costs nothing, and a still copy of a moving clip pays for all the motion that it lacks.
    motion PSNR   PSNR over the pixels of ``moving_region``: those farther than 16/255 from the clip's temporal
                  median in some colour. What is there for most of the clip counts as the background; the region
                  holds a moving object, and the places that it covers and uncovers.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from openltx.eval.metrics import psnr

MOVING = 16 / 127.5  # distance from the median: 16 of 255 levels, beyond what H.264 leaves in a still background
SMALLEST_SHARE = 1e-3  # of the pixels: where fewer move, nothing does


def flicker(restored: Float[Tensor, "3 F H W"], original: Float[Tensor, "3 F H W"]) -> float | None:
    """Mean difference of the two videos' changes from frame to frame, in 1/255; None for a single frame."""
    if original.shape[1] < 2:
        return None
    difference = restored.clamp(-1, 1) - original.clamp(-1, 1)
    return 127.5 * difference.diff(dim=1).abs().mean().item()


def moving_region(video: Float[Tensor, "3 F H W"]) -> Bool[Tensor, "F H W"]:
    """Where a clip moves: pixels that are far from what their place shows for most of the time."""
    video = video.clamp(-1, 1)
    background = video.median(dim=1, keepdim=True).values
    return (video - background).abs().amax(dim=0) > MOVING


def motion_psnr(restored: Float[Tensor, "3 F H W"], original: Float[Tensor, "3 F H W"]) -> float | None:
    """PSNR in dB where the original moves (at most 106); None where less than a thousandth of its pixels do."""
    region = moving_region(original)
    if region.float().mean() < SMALLEST_SHARE:
        return None
    return psnr(restored[:, region], original[:, region])
