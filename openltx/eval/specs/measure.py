"""Seconds for one block of each architecture on this machine, with random weights: time does not depend on them."""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from openltx.errors import RequestError
from openltx.eval.report import markdown_table
from openltx.eval.specs.architectures import Architecture, Inputs
from openltx.eval.specs.table import TEXT_TOKENS, blocks_of, flops_of, latent_of, tokens_of, width_of
from openltx.geometry import VideoShape
from openltx.pipelines.machines import available_memory

_COPIES = 24  # of the tokens, in the widest blocks (hidden layers, keys, values, float32 scratch)


@dataclass(frozen=True, kw_only=True)
class BlockTime:
    """The best of some forward passes of one block, and the operations in it.

    seconds       on the clock
    cpu_seconds   of computing, in all threads together: what a busy machine does not blur
    """

    model: str
    blocks: str
    count: int
    tokens: int
    seconds: float
    cpu_seconds: float
    flops: int


def measure(
    architectures: Sequence[Architecture], shape: VideoShape, dtype: torch.dtype, repeats: int
) -> Iterator[BlockTime]:
    """One after the other, so that only one block is in memory. Raises ``RequestError`` if that is too small."""
    for architecture in architectures:
        space, factor, _ = latent_of(architecture)
        tokens = tokens_of(shape, space, factor, architecture.patch)
        with torch.device("meta"):
            transformer = architecture.transformer()
        for blocks in architecture.blocks:
            modules = blocks_of(transformer, blocks)
            block = modules[0]
            width = width_of(block)
            _require_memory(architecture.name, block, tokens * width, dtype)
            with torch.device("meta"):
                flops = flops_of(block, blocks, tokens, width)
            inputs = _inputs(blocks.inputs, tokens, width, dtype)
            block_on_cpu = with_random_weights(block, dtype)
            seconds, cpu_seconds = _best_time(block_on_cpu, inputs, repeats)
            yield BlockTime(
                model=architecture.name,
                blocks=blocks.attribute,
                count=len(modules),
                tokens=tokens,
                seconds=seconds,
                cpu_seconds=cpu_seconds,
                flops=flops,
            )


def with_random_weights(block: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a block of the meta device on the CPU, with small random weights."""
    block = copy.deepcopy(block).to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in (*block.parameters(), *block.buffers()):
        tensor.normal_(std=0.02)
    return block


def to_markdown(found: Sequence[BlockTime], shape: VideoShape, dtype: torch.dtype) -> str:
    """A row for each kind of block."""
    rows = [
        [
            t.model,
            f"{t.count} {t.blocks}",
            t.tokens,
            t.seconds,
            t.cpu_seconds,
            t.flops / 1e12,
            t.flops / t.seconds / 1e9,
        ]
        for t in found
    ]
    header = ["model", "blocks", "tokens", "seconds", "CPU seconds", "TFLOP", "GFLOP/s"]
    size = f"{shape.width}x{shape.height}, {shape.frames} frames"
    how = f"One block at {size}, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads."
    return f"{how}\n\n{markdown_table(header, rows)}\n"


def to_json(found: Sequence[BlockTime], dtype: torch.dtype) -> dict[str, Any]:
    """The same as JSON values."""
    how = {"precision": str(dtype).removeprefix("torch."), "threads": torch.get_num_threads()}
    return {**how, "blocks": [asdict(each) for each in found]}


def _inputs(make: Inputs, tokens: int, width: int, dtype: torch.dtype) -> tuple[Any, ...]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return make(tokens, TEXT_TOKENS, width)
    finally:
        torch.set_default_dtype(before)


@torch.inference_mode()
def _best_time(block: nn.Module, inputs: tuple[Any, ...], repeats: int) -> tuple[float, float]:
    """Seconds on the clock and of computing, of the pass that was over first."""
    times = []
    for _ in range(repeats):
        started, computed = time.perf_counter(), time.process_time()
        block(*inputs)
        times.append((time.perf_counter() - started, time.process_time() - computed))
    return min(times)


def _require_memory(name: str, block: nn.Module, numbers: int, dtype: torch.dtype) -> None:
    needed = dtype.itemsize * (sum(p.numel() for p in block.parameters()) + _COPIES * numbers)
    there = available_memory(torch.device("cpu"))
    if needed > there:
        raise RequestError(
            f"A block of {name} needs about {needed / 2**30:.1f} GiB at this size, and {there / 2**30:.1f} GiB are "
            "free. Ask for a smaller --size or fewer --frames, or leave the model out with --models."
        )
