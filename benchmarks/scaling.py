"""``make bench-scaling``: how time and memory grow with tokens and with frames.

    python -m benchmarks.scaling [--rounds 3]

One block of the 2B in bfloat16 over 256 to 12,288 tokens, and the streamed decoder of VAE 0.9.5 over 9 to 257 frames of
256x256. Each point is a process of its own. The exponents are those of a straight line through the logarithms of the
larger half of the points: 1 is linear.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import torch

from benchmarks.cases import measure_peak
from benchmarks.contenders import BLOCKS
from benchmarks.run import RESULTS, _processor
from benchmarks.timing import race
from openltx.kernels.volume import lay_out_kernels
from openltx.models.presets import vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.models.vae.streaming import decode_stream

TOKENS = (256, 512, 1024, 2048, 4096, 8192, 12288)
FRAMES = (9, 17, 33, 65, 129, 257)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        torch.set_num_threads(options.threads)
        kind, size = options.point
        measure = {"tokens": _block, "frames": _decoder}[kind]
        with torch.inference_mode():
            print(json.dumps(measure(int(size), options.rounds)))
        return
    lines = [f"# Scaling, {datetime.date.today()}", "", f"{_processor()}, {options.threads} threads.", ""]
    for kind, sizes, unit in (("tokens", TOKENS, "one block of the 2B"), ("frames", FRAMES, "VAE 0.9.5, 256x256")):
        points = [_in_process(kind, size, options) for size in sizes]
        lines += [f"| {kind} ({unit}) | seconds | peak memory above the weights, MiB |", "|---|---|---|"]
        lines += [
            f"| {s} | {p['seconds']:.3f} | {1024 * p['peak_gib']:.0f} |" for s, p in zip(sizes, points, strict=True)
        ]
        half = len(sizes) // 2
        time_exponent, memory_exponent = (
            np.polyfit(np.log(sizes[half:]), np.log([max(p[key], 1e-6) for p in points[half:]]), 1)[0]
            for key in ("seconds", "peak_gib")
        )
        lines += ["", f"Exponents: time {time_exponent:.2f}, memory {memory_exponent:.2f}.", ""]
        print("\n".join(lines[-len(sizes) - 5 :]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    report = RESULTS / f"scaling_{datetime.date.today()}.md"
    report.write_text("\n".join(lines))
    print(f"written: {report}")


def _in_process(kind: str, size: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scaling", "--point", kind, str(size)]
    command += ["--rounds", str(options.rounds), "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _block(tokens: int, rounds: int) -> dict[str, float]:
    model = VideoTransformer(replace(BLOCKS, num_layers=1)).eval().bfloat16()
    x = torch.randn(1, tokens, 128).bfloat16()
    positions, text = torch.rand(1, 3, tokens), torch.randn(1, 128, BLOCKS.caption_channels).bfloat16()
    context = model.prepare(positions, text, torch.ones(1, 128, dtype=torch.bool))

    def step() -> None:
        model.step(x, torch.tensor([[0.7]]), None, context)

    peak = measure_peak(step)["peak_gib"]
    return {"seconds": race({"ours": step}, rounds)["ours"], "peak_gib": peak}


def _decoder(frames: int, rounds: int) -> dict[str, float]:  # noqa: ARG001 (long enough to be timed once)
    vae = VideoAutoencoder(vae_preset("0.9.5")).eval().bfloat16()
    lay_out_kernels(vae)
    latents = torch.randn(1, 128, (frames - 1) // 8 + 1, 8, 8).bfloat16()
    next(decode_stream(vae, latents[:, :, :1], 0.05, 0.0))

    def decode() -> None:
        for _ in decode_stream(vae, latents, 0.05, 0.0):
            pass

    return measure_peak(decode)


if __name__ == "__main__":
    main()
