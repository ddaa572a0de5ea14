"""The small pictures beside a video: a preview while it forms, a thumbnail and a spritesheet when it is done."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from openltx.flow.solvers import Step
from openltx.geometry import LatentShape, unpatchify
from openltx.media.contact_sheet import evenly_spaced
from openltx.media.transforms import to_frames
from openltx.models.vae.autoencoder import VideoAutoencoder

PREVIEW_CELLS = 96  # a preview is decoded from at most so many latent cells: 256x384 pixels
PREVIEW_SIDE = 384
THUMBNAIL_SIDE = 512
SPRITE_SIDE = 160
SPRITES = 16


@torch.inference_mode()
def preview(vae: VideoAutoencoder, step: Step, grid: LatentShape) -> Image.Image:
    """The middle of the video as the sampler expects it now: its estimate of x_0, one latent frame, decoded small.

    A lone latent frame decodes to a single picture. Large ones are reduced before that, which the decoder takes well
    enough for a glance.
    """
    tokens = replace(step.state, tokens=step.clean).targets
    latents = unpatchify(tokens[:1], grid)
    middle = _reduced(latents[:, :, grid.frames // 2])[:, :, None].to(next(vae.parameters()).dtype)
    t = 0.05 if vae.config.timestep_conditioning else None
    frames = to_frames(vae.decode(middle, t, 0.0)[0].float())
    return _within(frames[0], PREVIEW_SIDE)


def thumbnail(frames: UInt8[np.ndarray, "F H W 3"]) -> Image.Image:
    """The middle frame."""
    return _within(frames[len(frames) // 2], THUMBNAIL_SIDE)


def spritesheet(frames: UInt8[np.ndarray, "F H W 3"]) -> Image.Image:
    """Up to 16 evenly spaced frames, four in a row, the first and the last among them."""
    sprites = [_within(frames[index], SPRITE_SIDE) for index in evenly_spaced(len(frames), SPRITES)]
    width, height = sprites[0].size
    columns = min(len(sprites), 4)
    sheet = Image.new("RGB", (columns * width, -(-len(sprites) // columns) * height))
    for index, sprite in enumerate(sprites):
        sheet.paste(sprite, (index % columns * width, index // columns * height))
    return sheet


def _reduced(latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    height, width = latents.shape[-2:]
    scale = min((PREVIEW_CELLS / (height * width)) ** 0.5, 1.0)
    return F.adaptive_avg_pool2d(latents, (max(round(height * scale), 1), max(round(width * scale), 1)))


def _within(frame: UInt8[np.ndarray, "H W 3"], side: int) -> Image.Image:
    """A frame reduced until no side is longer than ``side``."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image
