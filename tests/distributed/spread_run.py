"""Tiny training runs: `[torchrun ...] spread_run.py OUT NAME:STEPS[:OPTION...] ...`.

Options: shard, bf16 (what gathered weights compute in), recompute, lora, flow (training instead of fine-tuning),
sequence=N. Without torchrun a number before some runs says how many processes take these; they are forked, which spares
each its imports.
"""

import os
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from openltx.data.captioned import CaptionedVideo
from openltx.data.encoded import Encoded
from openltx.data.latents import Example
from openltx.distributed import ranks
from openltx.distributed.shard import Parallel, spread
from openltx.flow.schedule import Schedule
from openltx.models.bundle import LTXModel
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.text import TextContext
from openltx.models.transformer import VideoTransformer, init_weights
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.training import loop
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.flow import FlowConfig, FlowTask
from openltx.training.lora import BLOCKS, Adapters, LoRAConfig
from openltx.training.tuning import TuneConfig, TuneTask


class NoText:
    """Stands for a text encoder; only the empty caption is asked for."""

    name, channels = "none", 384

    def encode(self, prompts: Sequence[str]) -> TextContext:
        return TextContext(torch.ones(len(prompts), 2, 384), torch.ones(len(prompts), 2, dtype=torch.bool))


def new_task(lora: bool, flow: bool) -> TuneTask | FlowTask:
    """Clips of 9 and of 6 tokens, so that runs of tokens are not equally long on two or four ranks."""
    generator = torch.Generator().manual_seed(0)
    transformer = VideoTransformer(transformer_preset("tiny"))
    init_weights(transformer, generator)
    for parameter in transformer.parameters():  # nothing is zero, so that everything has a gradient
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    model = LTXModel(
        name="tiny",
        transformer=transformer,
        vae=VideoAutoencoder(vae_preset("tiny")),
        text=NoText(),
        schedule=Schedule(),
    )
    if flow:
        clips = [
            Example(
                latents=torch.randn(16, 3, 1, 3, generator=generator),
                captions=(torch.randn(4, 384, generator=generator),),
                fps=8.0,
            )
            for _ in range(6)
        ]
        optim = OptimConfig(kind="muon", lr=0.01, muon_lr=0.01, eps=1e-3)
        return FlowTask(model, clips, FlowConfig(tokens_per_batch=18), optim, (), streams=4)
    examples = [
        Encoded(
            latents=torch.randn(16, 3, 1, 3 - index % 2, generator=generator),
            text=torch.randn(4 + index, 384, generator=generator),
            fps=8.0,
            caption="",
            source=CaptionedVideo(path=Path("x.mp4"), caption=""),
        )
        for index in range(6)
    ]
    adapters = Adapters(transformer, LoRAConfig(rank=2, targets=BLOCKS)) if lora else None
    config = TuneConfig(batch_size=2, caption_dropout=0.2, first_frame_probability=0.5, first_frame_max_t=0.1)
    # a large eps: a gradient of rounding errors alone must not become a whole step
    return TuneTask(model, examples, config, OptimConfig(lr=0.01, eps=1e-3), adapters=adapters)


def main(out: Path, *runs: str) -> None:
    torch.set_num_threads(1)
    with ranks.process_group():
        for words in runs:
            name, steps, *options = words.split(":")
            sequence = int(next((o.removeprefix("sequence=") for o in options if "=" in o), 1))
            task = new_task("lora" in options, "flow" in options)
            parallel = Parallel(
                shard="shard" in options,
                sequence=sequence,
                recompute="recompute" in options,
                gathered="bf16" if "bf16" in options else "float32",
            )
            config = RunConfig(
                steps=int(steps), out=out / name, accumulate=4, autocast="none", ema_decay=0.5, checkpoint_every=2,
                threads=1, tensorboard=False, progress=False,
            )  # fmt: skip
            transformer = task.model.transformer
            loop.run(
                task, config, distribute=lambda t=transformer, p=parallel: spread(t, p), sequence=parallel.sequence
            )


def fork(processes: int, out: Path, runs: Sequence[str]) -> bool:
    """Whether all processes came to their end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "localhost"})
        try:
            main(out, *runs)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ends = [os.waitpid(child, 0)[1] for child in children]  # of all, also if one failed
    return not any(ends)


def launch(out: Path, words: Sequence[str]) -> bool:
    """Run "N" "run" ... "N" "run" ...: each number's runs on so many processes."""
    groups: list[tuple[int, list[str]]] = []
    for word in words:
        if word.isdigit():
            groups.append((int(word), []))
        else:
            groups[-1][1].append(word)
    ends = [fork(processes, out, runs) for processes, runs in groups]
    return all(ends)


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        main(Path(sys.argv[1]), *sys.argv[2:])
    else:
        import openltx.distributed.checkpoint  # noqa: F401 (before the fork)

        sys.exit(0 if launch(Path(sys.argv[1]), sys.argv[2:]) else 1)
