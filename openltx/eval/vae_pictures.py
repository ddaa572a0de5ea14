"""What the numbers of ``vae.evaluate`` look like: a contact sheet, and videos with original and copy side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL.Image import Image
from torch import Tensor

from openltx.data.manifest import Clip
from openltx.eval.baseline import Downsampling, latent_numbers, resample, size_of
from openltx.eval.vae import Evaluation, Outcome, Settings, levels_of, noise_seed, read_clip, reconstruct
from openltx.media.contact_sheet import contact_sheet, evenly_spaced
from openltx.media.io import write_video
from openltx.media.transforms import to_frames
from openltx.models.vae.autoencoder import VideoAutoencoder

ERROR_GAIN = 4  # errors are shown as mid-grey plus four times the difference


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One clip and what came back."""

    clip: Clip
    original: UInt8[np.ndarray, "F H W 3"]
    restored: UInt8[np.ndarray, "F H W 3"]
    psnr: float
    baseline: tuple[str, UInt8[np.ndarray, "F H W 3"]] | None = None  # the downsampled copy, and what it is

    @property
    def error(self) -> UInt8[np.ndarray, "F H W 3"]:
        """The difference, magnified, around mid-grey."""
        difference = self.restored.astype(np.int16) - self.original
        return np.clip(128 + ERROR_GAIN * difference, 0, 255).astype(np.uint8)


def worth_seeing(psnr: Sequence[float], count: int) -> list[int]:
    """Places of at most ``count`` clips, the hardest first: half of them the very hardest, the others spread evenly."""
    ranking = sorted(range(len(psnr)), key=lambda index: psnr[index])
    hardest, rest = ranking[: (count + 1) // 2], ranking[(count + 1) // 2 :]
    return [*hardest, *(rest[i] for i in evenly_spaced(len(rest), count // 2))]


def reconstructions(
    vae: VideoAutoencoder, data: Path, found: Evaluation, settings: Settings, count: int
) -> list[Reconstruction]:
    """At most ``count`` clips at the first level, the hardest first, restored once more as they were measured."""
    (_, outcome), *_ = found.levels
    psnr = [similarity.psnr for similarity in outcome.similarities]
    level = levels_of(vae.config, settings)[:1]
    made = []
    for index in worth_seeing(psnr, count):
        clip = found.clips[index]
        video = read_clip(data, clip, vae.config, settings)
        (restored,) = reconstruct(vae, video, level, noise_seed(settings, index))
        made.append(
            Reconstruction(
                clip=clip,
                original=to_frames(video),
                restored=to_frames(restored),
                psnr=psnr[index],
                baseline=None if found.baseline is None else _downsampled(vae, video, *found.baseline, index),
            )
        )
    return made


def _downsampled(
    vae: VideoAutoencoder, video: Float[Tensor, "3 F H W"], downsampling: Downsampling, outcome: Outcome, index: int
) -> tuple[str, UInt8[np.ndarray, "F H W 3"]]:
    size = size_of(video)
    kept = downsampling.size(size, latent_numbers(vae.config, size))
    caption = f"bicubic {'x'.join(map(str, kept))}, {outcome.similarities[index].psnr:.1f} dB"
    return caption, to_frames(resample(video, kept))


def sheet(made: Sequence[Reconstruction]) -> Image:
    """Original, reconstruction and magnified error, a row each; then the baseline's copy, where there is one."""
    rows = []
    for one in made:
        rows.append((one.clip.caption, one.original))
        rows.append((f"reconstruction, {one.psnr:.1f} dB", one.restored))
        rows.append((f"error x{ERROR_GAIN}", one.error))
        if one.baseline is not None:
            rows.append(one.baseline)
    return contact_sheet(rows)


def write_videos(made: Sequence[Reconstruction], folder: Path) -> list[Path]:
    """An MP4 for each: original | reconstruction | magnified error; named by rank and PSNR. What was there goes."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]-*dB.mp4"):
        old.unlink()
    paths = []
    for rank, one in enumerate(made, start=1):
        path = folder / f"{rank:02d}-{one.psnr:.1f}dB.mp4"
        write_video(path, np.concatenate([one.original, one.restored, one.error], axis=2), one.clip.fps)
        paths.append(path)
    return paths
