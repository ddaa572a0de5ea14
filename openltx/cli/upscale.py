"""``openltx upscale``: a video made larger by an upscaler alone, without a transformer and without a prompt."""

import secrets
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from openltx.checkpoints.load import load_vae
from openltx.cli.output import free_path, require_place_for, say
from openltx.errors import RequestError
from openltx.kernels.volume import lay_out_kernels
from openltx.media.writers import SUFFIXES
from openltx.pipelines.request import Fit, Sampling
from openltx.pipelines.residency import Device, choose_device, fast_dtype
from openltx.pipelines.upscale import load_upscaler
from openltx.pipelines.upscale import upscale as make_larger


def upscale(
    video: Path,
    /,
    *,
    upscaler: Path,
    model: Path,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    fps: float | None = None,
    fit: Fit = "exact",
    adain: float = 1.0,
    decode_timestep: float = Sampling().decode_timestep,
    seed: int | None = None,
    device: Device = "auto",
) -> None:
    """Make a video larger, or smoother in time, by an upscaler alone.

    The video is encoded, its latents are enlarged, and decoded. That needs no transformer and no prompt, and is quick.
    `openltx generate PROMPT --video FILE --upscaler FILE` refines the enlarged latents with the transformer as well.

    Parameters
    ----------
    video
        The video or picture to enlarge: sides that are multiples of 32, and 8k+1 frames.
    upscaler
        The file of a spatial or temporal upscaler.
    model
        A weight file or folder with the VAE; its transformer is not loaded.
    output
        The file to write; the name of the video with "-upscaled" if left out.
    fps
        Frames a second. Left out, the result lasts as long as the video: a temporal upscaler doubles the rate. The old
        rate gives slow motion.
    fit
        A size off the grid is refused (exact), or padded and cropped back (pad; frames beyond 8k+1 are left out).
    adain
        How far every latent channel gets its mean and contrast back after enlarging, 0 to 1.
    decode_timestep
        Noise level that the decoder is told, 0 to 1; half as much noise is mixed in.
    seed
        Of the noise for the decoder; drawn if left out.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    suffix = video.suffix if video.suffix.lower() in SUFFIXES else ".mp4"
    place = output or free_path(video.with_name(f"{video.stem}-upscaled{suffix}"))
    require_place_for(place)
    for name, value in (("adain", adain), ("decode_timestep", decode_timestep)):
        if not 0 <= value <= 1:
            raise RequestError(f"{name}={value} is not possible: it must be from 0 to 1.")
    torch_device = choose_device(device)
    with Console(stderr=True).status(f"Loading {upscaler} ..."):
        vae = load_vae(model, fast_dtype(torch_device), torch_device)
        lay_out_kernels(vae)
        network = load_upscaler(upscaler, vae)
    with Console(stderr=True).status(f"Enlarging {video} ..."):
        larger = make_larger(
            vae,
            network,
            video,
            fps=fps,
            fit=fit,
            adain_factor=adain,
            decode_timestep=decode_timestep,
            decode_noise_scale=decode_timestep / 2,
            seed=secrets.randbelow(2**31) if seed is None else seed,
        )
    larger.save(place)
    frames, height, width, _ = larger.frames.shape
    say(
        f"{place}  {frames} frames, {width}x{height}, {larger.fps:g} fps, seed {larger.metadata['seed']}, "
        f"{larger.metadata['seconds_taken']} s"
    )
