"""Training the transformer: our loop beside the released trainer's recipe on diffusers' network.

    python -m benchmarks.training_flow --steps 60 --rounds 2 --threads 2 [--compile] [--text-length 256] [--json FILE]

Same start weights, videos, captions, draws of t and noise, batch, optimizer and number of steps; bf16 autocast over
float32 weights in both. The recipe, as the released trainer has it: t rounded to 1/1000 for the network, positions
without the causal first frame, the first frame given with one coin for the whole batch and out of the loss, the loss
divided by the mean of its mask, clipping at 1, torch's AdamW; no average of the weights. Ours is what
``openltx train`` runs: ``training.loop`` with its average, logs and checkpoints.

Printed: tokens a second (median step of all rounds, which take turns) by the clock and by processor time, which a busy
machine disturbs less; their ratios; and the mean loss of the last quarter of the steps in both. ``--compile`` compiles
diffusers' network, as the recipe does on a GPU; ``--text-length`` pads its captions to a fixed length, as the recipe
does with 256.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import openltx
from openltx.cache import cache_folder
from openltx.checkpoints.keys import TRANSFORMER_TABLE
from openltx.conditioning import Given, training_state
from openltx.data.captioned import CaptionedVideo
from openltx.data.encoded import Encoded, Size, encode_videos
from openltx.eval.clips import clips_to_measure
from openltx.flow.path import velocity
from openltx.flow.schedule import sample_logit_normal
from openltx.geometry import LatentShape, patchify, unpatchify
from openltx.models.transformer import TransformerConfig, VideoTransformer, init_weights
from openltx.noise import derived_generator
from openltx.training import loop
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.optim import ExponentialAverage

LEARNING_RATE, MU = 5e-4, 0.9
FIRST_FRAME = 0.1


class Draw(NamedTuple):
    """All that a step sees."""

    clean: Tensor
    noise: Tensor
    t: Tensor
    given: bool
    text: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Work:
    """The same for both: start weights and data."""

    config: TransformerConfig
    weights: Mapping[str, Tensor]
    shape: LatentShape
    fps: float
    latents: Tensor
    texts: Sequence[Tensor]
    batch: int

    def draw(self, step: int) -> Draw:
        rng, generator = np.random.default_rng([7, step]), derived_generator(7, step)
        chosen = rng.choice(len(self.latents), self.batch, replace=len(self.latents) < self.batch)
        clean = patchify(self.latents[chosen])
        texts = [self.texts[i] for i in chosen]
        lengths = torch.tensor([len(text) for text in texts])
        text = nn.utils.rnn.pad_sequence(texts, batch_first=True)
        return Draw(
            clean=clean,
            noise=torch.randn(clean.shape, generator=generator),
            t=sample_logit_normal(self.batch, MU, 1.0, generator),
            given=bool(rng.random() < FIRST_FRAME),
            text=text,
            mask=torch.arange(text.shape[1]) < lengths[:, None],
        )

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.shape.num_tokens


class Watch:
    """Clock and processor time of each step, from the start of one to that of the next."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def steps(self) -> list[tuple[float, float]]:
        """Without the first three, in which memory and kernels are fetched."""
        pairs = list(itertools.pairwise(self.marks))
        return [(after[0] - before[0], after[1] - before[1]) for before, after in pairs[min(3, len(pairs) - 1) :]]


class Ours:
    """The task for our loop."""

    name = "benchmark"

    def __init__(self, work: Work, watch: Watch) -> None:
        self.work, self.watch = work, watch
        self.module = VideoTransformer(work.config)
        self.module.load_state_dict(dict(work.weights))
        self.settings: Mapping[str, object] = {}
        optim = OptimConfig(lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.01)
        self.phases = [loop.Phase(name="flow", parameters=list(self.module.parameters()), optim=optim, loss=self.loss)]

    def batch(self, step: int, micro: int) -> Draw:  # noqa: ARG002 (the loop's signature)
        return self.work.draw(step)

    def on_step(self, step: int, average: ExponentialAverage) -> None:  # noqa: ARG002
        self.watch.mark()

    def after_step(self, step: int) -> None:
        """Nothing to keep."""

    def write_samples(self, folder: Path, step: int, ema: bool) -> None:
        """None."""

    def loss(self, draw: Draw, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:  # noqa: ARG002
        work = self.work
        first = Given(latents=unpatchify(draw.clean, work.shape)[:, :, :1])
        items = [first] if draw.given else []
        state, times, counted = training_state(draw.clean, draw.noise, draw.t, work.shape, work.fps, items)
        predicted = self.module(state.tokens, times, state.positions, draw.text, draw.mask).float()
        error = (predicted - velocity(draw.clean, draw.noise)).square().mean(-1) * counted
        return (error.sum(1) / counted.sum(1)).mean(), {}


def run_ours(work: Work, steps: int, watch: Watch) -> list[float]:
    """The loss of each step."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(steps=steps, out=Path(folder), tensorboard=False, progress=False, keep_last=1)
        loop.run(Ours(work, watch), config)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [line["flow/loss"] for line in lines]


def run_recipe(work: Work, steps: int, watch: Watch, *, compiled: bool, text_length: int | None) -> list[float]:
    """The same of the recipe on diffusers' network."""
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

    config = work.config
    network = LTXVideoTransformer3DModel(
        in_channels=config.in_channels, out_channels=config.out_channels, num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim, cross_attention_dim=config.width, num_layers=config.num_layers,
        caption_channels=config.caption_channels,
    )  # fmt: skip
    network.load_state_dict(TRANSFORMER_TABLE.apply(work.weights))
    network.train()
    model = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    cells, shape = work.shape.height * work.shape.width, work.shape
    losses = []
    for step in range(steps):
        watch.mark()
        draw = work.draw(step)
        text, mask = draw.text, draw.mask
        if text_length is not None:
            missing = text_length - text.shape[1]
            text, mask = nn.functional.pad(text, (0, 0, 0, missing)), nn.functional.pad(mask, (0, missing))
        sigma = draw.t[:, None].expand(-1, shape.num_tokens)
        counted = torch.ones(sigma.shape)
        if draw.given:
            first = torch.arange(shape.num_tokens) < cells
            sigma, counted = sigma.masked_fill(first, 0.0), counted.masked_fill(first, 0.0)
        noised = (1 - sigma[..., None]) * draw.clean + sigma[..., None] * draw.noise
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(
                hidden_states=noised,
                encoder_hidden_states=text,
                timestep=(1000 * sigma).round().long(),
                encoder_attention_mask=mask,
                num_frames=shape.frames,
                height=shape.height,
                width=shape.width,
                rope_interpolation_scale=(8 / work.fps, 32, 32),
                return_dict=False,
            )[0]
        error = (predicted.float() - (draw.noise - draw.clean)).square()
        loss = (error * counted[..., None] / counted.mean()).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def prepare(clips: int, batch: int) -> Work:
    """Playroom clips of 49 frames as the bundled model's latents; its architecture, from nothing."""
    model = openltx.load("playroom", device="cpu", precision="float32")
    assert model.text is not None
    folder, chosen = clips_to_measure(clips, split="heldout", data=None, seed=0)
    videos = [CaptionedVideo(path=folder / clip.path, caption=clip.caption) for clip in chosen if clip.frames == 49]
    cache = cache_folder() / "benchmarks" / "training_flow"
    examples, _ = encode_videos(videos, cache, model.vae, model.text, [Size(width=128, height=128, frames=49)])
    return work_of(model.transformer.config, examples, batch)


def work_of(config: TransformerConfig, examples: Sequence[Encoded], batch: int) -> Work:
    """Examples of one size as data, and start weights."""
    transformer = VideoTransformer(config)
    init_weights(transformer, torch.Generator().manual_seed(0))
    _, f, h, w = examples[0].latents.shape
    return Work(
        config=config,
        weights={name: tensor.clone() for name, tensor in transformer.state_dict().items()},
        shape=LatentShape(frames=f, height=h, width=w),
        fps=examples[0].fps,
        latents=torch.stack([example.latents.float() for example in examples]),
        texts=[example.text.float() for example in examples],
        batch=batch,
    )


def compare(work: Work, steps: int, rounds: int, *, compiled: bool, text_length: int | None) -> dict[str, float]:
    """Both contenders in turn, ``rounds`` times."""
    spent: dict[str, list[tuple[float, float]]] = {"ours": [], "recipe": []}
    final = {}
    for _ in range(rounds):
        for name in spent:
            watch = Watch()
            if name == "ours":
                losses = run_ours(work, steps, watch)
            else:
                losses = run_recipe(work, steps, watch, compiled=compiled, text_length=text_length)
            spent[name] += watch.steps()
            final[name] = sum(losses[-max(1, steps // 4) :]) / max(1, steps // 4)
    clock, processor = (
        {name: work.tokens_per_step / median(pair[kind] for pair in pairs) for name, pairs in spent.items()}
        for kind in (0, 1)
    )
    return {
        "tokens_per_step": work.tokens_per_step,
        "steps": steps,
        "ours_tokens_per_second": clock["ours"],
        "recipe_tokens_per_second": clock["recipe"],
        "ratio": clock["ours"] / clock["recipe"],
        "ours_tokens_per_processor_second": processor["ours"],
        "recipe_tokens_per_processor_second": processor["recipe"],
        "processor_ratio": processor["ours"] / processor["recipe"],
        "ours_final_loss": final["ours"],
        "recipe_final_loss": final["recipe"],
        "loss_difference": final["ours"] / final["recipe"] - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--text-length", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = prepare(options.clips, options.batch)
    found = compare(work, options.steps, options.rounds, compiled=options.compile, text_length=options.text_length)
    print(json.dumps(found, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
