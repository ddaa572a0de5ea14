"""How far the latents of a long video drift from window to window, with AdaIN off and on, as rows of a table.

python -m benchmarks.drift [FRAMES [WINDOW [OVERLAP]]]       the bundled model; 209 frames in windows of 49 by default

For each window: mean and standard deviation of the latents that are new in it, and how far their channels' means
are from the first window's (root mean square over the channels). Averages over two prompts.
"""

import sys
from itertools import pairwise
from statistics import mean

import torch
from torch import Tensor

import openltx
from openltx.pipelines.long import LongVideo
from openltx.recipes.playroom import SAMPLE_PROMPTS

PROMPTS = SAMPLE_PROMPTS[:2]
ADAIN = (0.0, 0.25)


def windows_of(video: LongVideo, prompt: str, frames: int, seed: int) -> list[Tensor]:
    """Of each window the latents (1 c f h w) that are new, as they stand in the long video."""
    plan = video.plan(openltx.GenerationRequest(prompt, frames=frames, seed=seed))
    latents = torch.cat(list(video.latents(plan)), 2)
    ends = [(window.end - 1) // 8 + 1 for window in plan.windows]
    return [latents[:, :, a:b] for a, b in pairwise([0, *ends])]


def row(videos: list[list[Tensor]], index: int) -> str:
    """Mean, deviation and distance of the channels' means of one window, averaged over the videos."""
    here = [video[index] for video in videos]
    means = [(video[index].mean((2, 3, 4)), video[0].mean((2, 3, 4))) for video in videos]
    distance = mean((now - first).square().mean().sqrt().item() for now, first in means)
    return f"{mean(x.mean().item() for x in here):+.3f}, {mean(x.std().item() for x in here):.3f}, {distance:.3f}"


def main(frames: int = 209, window: int = 49, overlap: int = 9, model: str = "playroom") -> None:
    loaded = openltx.load(model, device="cpu")
    made = []
    for factor in ADAIN:
        video = LongVideo(loaded, openltx.Windows(window=window, overlap=overlap, adain=factor))
        made.append([windows_of(video, prompt, frames, seed) for seed, prompt in enumerate(PROMPTS)])
    print("| window | " + " | ".join(f"AdaIN {factor:g}" for factor in ADAIN) + " |")
    print("|" + "---|" * (1 + len(ADAIN)))
    for index in range(len(made[0][0])):
        print(f"| {index + 1} | " + " | ".join(row(videos, index) for videos in made) + " |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
