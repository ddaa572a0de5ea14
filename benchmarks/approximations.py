"""What tiles and the first-block cache change, on the bundled model: PSNR in dB against the video without them.

python -m benchmarks.approximations [--size 256x256] [--frames 25]
"""

import argparse
import time
from dataclasses import replace

import numpy as np

import openltx
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest

PROMPTS = ("a red ball bounces on a checkered floor", "a large blue cube stays still on a white marble floor")
THRESHOLDS = (0.0, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=25)
    options = parser.parse_args()
    generator = Generator(openltx.load("playroom", device="cpu", precision="float32"))
    print("| what | PSNR, dB | worst column, levels | seconds |\n|---|---|---|---|")
    for number, prompt in enumerate(PROMPTS):
        request = GenerationRequest(prompt, size=options.size, frames=options.frames, steps=10, seed=number)
        prepared = generator.prepare(request)
        *_, last = generator.sample(prepared)
        whole = generator.decode(prepared, last.state)
        for tile in (128, 192):
            tiled = replace(prepared, request=replace(prepared.request, tile=tile))
            started = time.perf_counter()
            frames = generator.decode(tiled, last.state)
            _row(f"tiles of {tile}, prompt {number}", frames, whole, time.perf_counter() - started)
    for number, prompt in enumerate(PROMPTS):
        request = GenerationRequest(prompt, seed=number)
        exact = None
        for threshold in THRESHOLDS:
            started = time.perf_counter()
            frames = generator(replace(request, cache_threshold=threshold)).frames
            exact = frames if exact is None else exact
            _row(f"cache {threshold}, prompt {number}", frames, exact, time.perf_counter() - started)


def _row(what: str, frames: np.ndarray, exact: np.ndarray, seconds: float) -> None:
    error = frames.astype(float) - exact
    psnr = 10 * np.log10(255**2 / max(float((error**2).mean()), 1e-12))
    column = np.abs(error).mean((0, 1, 3)).max()
    print(f"| {what} | {psnr:.1f} | {column:.2f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
