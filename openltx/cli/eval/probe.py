"""``openltx eval train-probe``: the network that finds solids and names their shapes."""

from pathlib import Path

import torch

from openltx.cli.eval.output import progress
from openltx.cli.output import say
from openltx.errors import RequestError
from openltx.eval.probe import examples_of, save_probe, train


def train_probe_command(
    *,
    data: Path,
    out: Path,
    clips: int = 3000,
    frames_per_clip: int = 3,
    steps: int = 1600,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Train the probe, which finds solids and names their shapes, on rendered frames.

    Parameters
    ----------
    data
        A rendered Playroom folder; its training clips are used.
    out
        The safetensors file to write.
    clips
        How many clips.
    frames_per_clip
        Frames of each.
    steps
        Training steps, of 24 frames.
    seed
        Of the choice of frames, the start and the augmentation.
    threads
        CPU threads.
    """
    if steps < 1:
        raise RequestError(f"A probe needs at least one step; {steps} were asked for.")
    torch.set_num_threads(threads)
    examples = list(examples_of(data, clips=clips, frames_per_clip=frames_per_clip, seed=seed))
    say(f"{len(examples)} frames")
    with progress("Training") as tick:
        for step, loss, probe in train(examples, steps=steps, seed=seed):
            tick(step, steps)
            if step % 200 == 0:
                say(f"step {step}  loss {loss:.3f}")
            if step == steps:
                save_probe(probe, out)
    say(f"{out}  {out.stat().st_size / 1e6:.2f} MB")
