"""Seconds of a training step's forward and backward pass (no optimizer), on random data of the bundled model's sizes.

python -m benchmarks.training flow|vae THREADS STEPS        OPENLTX_KERNELS=off for plain torch
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch

from openltx.conditioning import Given, training_state
from openltx.flow.path import velocity
from openltx.geometry import LatentShape, unpatchify
from openltx.models.transformer import VideoTransformer, init_weights
from openltx.recipes import playroom
from openltx.training.losses import dwt_loss
from openltx.training.vae import new_autoencoder

CLIPS = {"flow": 36, "vae": 6}


def flow() -> Callable[[], torch.Tensor]:
    """36 clips of 49 frames: 4,032 tokens, a third of them with a given first frame."""
    generator = torch.Generator().manual_seed(0)
    model = VideoTransformer(playroom.TRANSFORMER)
    init_weights(model, generator)
    shape, b = LatentShape(frames=7, height=4, width=4), CLIPS["flow"]
    clean, noise = (torch.randn(b, shape.num_tokens, 128, generator=generator) for _ in range(2))
    text, mask = torch.randn(b, 28, 384, generator=generator), torch.ones(b, 28, dtype=torch.bool)
    t, strength = torch.rand(b, generator=generator), (torch.arange(b) % 3 == 0).float()
    items = [Given(latents=unpatchify(clean, shape)[:, :, :1], strength=strength)]
    state, times, _ = training_state(clean, noise, t, shape, 24.0, items)
    target = velocity(clean, noise)
    return lambda: (model(state.tokens, times, state.positions, text, mask).float() - target).square().mean()


def vae() -> Callable[[], torch.Tensor]:
    """6 clips of 9 frames through encoder and decoder, with pixel and wavelet losses."""
    generator = torch.Generator().manual_seed(0)
    model = new_autoencoder(playroom.VAE, seed=0)
    video = torch.rand(CLIPS["vae"], 3, 9, 128, 128, generator=generator) * 2 - 1
    t = torch.full((CLIPS["vae"],), 0.1)

    def loss() -> torch.Tensor:
        output = model.decoder(model.encoder(video).mean, t).float()
        return (output - video).abs().mean() + dwt_loss(output, video, 2)

    return loss


def main(task: str, threads: int, steps: int) -> None:
    torch.set_num_threads(threads)
    loss, seconds = {"flow": flow, "vae": vae}[task](), []
    for _ in range(steps + 1):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            total = loss()
        total.backward()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(seconds[1:])}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
