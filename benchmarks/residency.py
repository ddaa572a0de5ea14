"""Memory and time of full-size models by residency: how much of a machine they need.

    python -m benchmarks.synthetic 2b model.safetensors
    python -m benchmarks.residency model.safetensors                      one step of 512x320, 25 frames
    python -m benchmarks.residency model.safetensors --residency streamed --decode --size 768x512 --frames 25 121

Each row is a process of its own. Memory is the peak of RssAnon in /proc/self/status, sampled every few milliseconds:
what the process has for itself, without pages of mapped files, which the system may drop and read again; RssFile, which
counts those, stands beside it. The prompt's token states are random (no text encoder). "decode" writes an MP4.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import openltx
from openltx.media.writers import VideoWriter
from openltx.models.text import TextContext
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest

TEXT_TOKENS = 256


class Watch:
    """Samples the process's memory until it is stopped: ``peak`` in MiB by stage."""

    def __init__(self) -> None:
        self.stage, self.peak = "start", dict[str, dict[str, float]]()
        self._started, self.seconds = time.perf_counter(), dict[str, float]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def enter(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[self.stage] = now - self._started
        self.stage, self._started = stage, now

    def stop(self) -> None:
        self.enter("end")
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.003):
            peaks = self.peak.setdefault(self.stage, {"RssAnon": 0.0, "RssFile": 0.0})
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) / 1024)


@dataclass(frozen=True)
class RandomText:
    """Token states without a text encoder."""

    channels: int
    name: str = "random"

    def encode(self, prompts: Sequence[str]) -> TextContext:
        states = torch.randn(len(prompts), TEXT_TOKENS, self.channels, generator=torch.Generator().manual_seed(1))
        return TextContext(states, torch.ones(len(prompts), TEXT_TOKENS, dtype=torch.bool))


def measure(options: argparse.Namespace, residency: str, frames: int) -> dict[str, object]:
    """Load, prepare, one step (and decode): seconds and peaks of each."""
    torch.set_num_threads(options.threads)
    watch = Watch()
    watch.enter("load")
    model = openltx.load(options.file, device="cpu", precision=options.precision, residency=residency)
    model = replace(model, text=RandomText(model.transformer.config.caption_channels))
    generator = Generator(model)
    request = GenerationRequest("random", size=options.size, frames=frames, steps=1, seed=1, tile=options.tile)
    watch.enter("prepare")
    prepared = generator.prepare(request)
    state = prepared.state
    if not options.decode:
        watch.enter("step")
        for step in generator.sample(prepared):
            assert step.state.tokens.isfinite().all()
    else:
        watch.enter("decode")
        with tempfile.TemporaryDirectory() as folder, VideoWriter(Path(folder) / "video.mp4", 24.0) as writer:
            for piece in generator.decode_stream(prepared, state):
                writer.write(piece)
    watch.stop()
    return {"seconds": watch.seconds, "peak": watch.peak, "tokens": prepared.grid.num_tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--residency", nargs="+", default=("resident", "offloaded", "streamed"))
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--size", default="512x320")
    parser.add_argument("--frames", type=int, nargs="+", default=(25,))
    parser.add_argument("--decode", action="store_true", help="decode instead of denoising")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--point", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(options, options.residency[0], options.frames[0])))
        return
    print("| residency | frames | stage | seconds | peak RssAnon, MiB | peak RssFile, MiB |\n|---|---|---|---|---|---|")
    for residency in options.residency:
        for frames in options.frames:
            command = [sys.executable, "-m", "benchmarks.residency", *sys.argv[1:], "--point"]
            command += ["--residency", residency, "--frames", str(frames)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            found = json.loads(done.stdout.splitlines()[-1])
            for stage, seconds in found["seconds"].items():
                if stage != "start":
                    peak = found["peak"].get(stage, {"RssAnon": 0.0, "RssFile": 0.0})
                    numbers = f"{seconds:.1f} | {peak['RssAnon']:.0f} | {peak['RssFile']:.0f}"
                    print(f"| {residency} | {frames} | {stage} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
