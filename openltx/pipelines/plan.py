"""What a request will take, before any of it is computed: operations, memory by stage, and time.

A plan is arithmetic on the model's configuration (``models.cost``); the weights are not read. Memory is what the
process has for itself. On a CPU, weights that are wanted as they are stored are pages of the file and are not counted
(``checkpoints.weights``); only the VAE's are laid out anew. Times are estimates: operations over a machine's rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from openltx.checkpoints.load import Description
from openltx.flow.guidance import GuidanceCurve, guidance_curve
from openltx.flow.schedule import part_of
from openltx.geometry import LatentShape
from openltx.models import cost
from openltx.pipelines.machines import Machine
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples

Residency = Literal["resident", "offloaded", "streamed"]
Part = Literal["text", "encoder", "transformer", "decoder"]
RESIDENCIES: tuple[Residency, ...] = ("resident", "offloaded", "streamed")

ONE_BATCH_TOKENS = 1024
"""Up to here prompt and negative prompt go through the transformer together: fewer, larger calls."""
WHOLE_DECODE_TOKENS = 1024
"""Up to here (about 121 frames of 256x256) a video is decoded in one pass."""

PROCESS = 250 * 2**20
"""What a process has before anything is loaded: the interpreter, torch and its libraries."""
_WIDE_CAPTION = 4096  # of T5-XXL, which gives 256 tokens
_T5_PARAMETERS = 4_762_310_656
_T5_MATRIX = 4096 * 10240  # the largest; they are read one at a time
_MINILM_PARAMETERS = 22_565_376


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a generation: its operations, and the bytes of weights and of values that live in it.

    passing    bytes of weights that come from the disk for it, each time that they do
    """

    name: str
    flops: int
    weights: int
    working: int
    passing: int = 0

    @property
    def memory(self) -> int:
        return self.weights + self.working

    def seconds(self, machine: Machine) -> float:
        """The longer of computing and of waiting for weights, which go on at the same time."""
        return max(self.flops / (machine.flops * machine.utilisation), self.passing / machine.link)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a request in a residency."""

    residency: Residency
    stages: tuple[Stage, ...]

    @property
    def peak(self) -> int:
        """Bytes at the worst moment, the process itself included."""
        return PROCESS + max(stage.memory for stage in self.stages)

    @property
    def flops(self) -> int:
        return sum(stage.flops for stage in self.stages)

    def seconds(self, machine: Machine) -> float:
        return sum(stage.seconds(machine) for stage in self.stages)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """As what and on what kind of machine a model is to run."""

    dtype: torch.dtype
    is_cpu: bool
    int8: bool = False

    def maps(self, model: Description) -> bool:
        """Whether it computes on the file's own pages: only a CPU can, and only if the type is the stored one."""
        return self.is_cpu and model.stored == self.dtype


def plan(
    model: Description,
    request: GenerationRequest,
    place: Placement,
    residency: Residency,
    *,
    has_latents: bool = False,
) -> Plan:
    """What a request takes; raises ``RequestError`` for a size off the grid and the like.

    ``has_latents``: there are latents to start from.
    """
    request = request.resolve(Sampling(**as_tuples(model.sampling)), has_latents=has_latents)
    settings = request.settings(Sampling())
    grid, size = settings.shape.padded().latent(), place.dtype.itemsize
    in_place, extra = _given(request, grid)
    denoising = _denoising(model, settings, grid.num_tokens + sum(shape.num_tokens for shape in extra), size)

    def weights(part: Part) -> int:
        return weights_at_work(model, place, residency, part)

    stages = [_reading(model, settings, weights("text"))]
    if given := in_place + extra:
        flops = sum(cost.encode_flops(model.vae, shape) for shape in given)
        working = max(cost.encode_numbers(model.vae, shape) for shape in given) * size
        stages.append(Stage(name="encode", flops=flops, weights=weights("encoder"), working=working))
    for stage in denoising:
        passing = stage.passing if residency == "streamed" else 0
        stages.append(replace(stage, weights=weights("transformer"), passing=passing))
    working = decode_bytes(model, grid, size, request.tile or 0)
    stages.append(
        Stage(name="decode", flops=cost.decode_flops(model.vae, grid), weights=weights("decoder"), working=working)
    )
    return Plan(residency=residency, stages=tuple(stages))


def weights_at_work(model: Description, place: Placement, residency: Residency, part: Part) -> int:
    """Bytes of weights that are in memory while a part of the model works."""
    size, mapped = place.dtype.itemsize, place.maps(model)
    blocks = model.transformer.num_layers * cost.block_parameters(model.transformer)
    rest = 0 if mapped else size * (cost.transformer_parameters(model.transformer) - blocks)
    inner = blocks if place.int8 else 0 if mapped else size * blocks
    encoder, decoder = size * cost.encoder_parameters(model.vae), size * cost.decoder_parameters(model.vae)
    if residency == "resident":
        return rest + inner + encoder + decoder
    if residency == "streamed":  # the block that works, and the next one
        inner = 2 * inner // model.transformer.num_layers
    return rest + {"text": 0, "encoder": encoder, "transformer": inner, "decoder": decoder}[part]


def decode_bytes(model: Description, grid: LatentShape, size: int, tile: int) -> int:
    """What decoding has at once, weights apart; a ``tile`` of 0 is the whole picture."""
    streamed = grid.num_tokens > WHOLE_DECODE_TOKENS or tile > 0
    if tile:
        grid = replace(grid, height=min(grid.height, tile // 32), width=min(grid.width, tile // 32))
    pixels = 3 * (8 if streamed else 8 * grid.frames - 7) * 32**2 * grid.height * grid.width
    return cost.decode_numbers(model.vae, grid, streamed=streamed) * size + 12 * pixels  # and three copies in float32


def _reading(model: Description, settings: Sampling, weights: int) -> Stage:
    """The text encoder, which is there for as long as it reads. T5 is taken to be stored in two bytes a number."""
    wide = model.transformer.caption_channels == _WIDE_CAPTION
    parameters = _T5_PARAMETERS if wide else _MINILM_PARAMETERS
    flops = 2 * parameters * _text_tokens(model) * _prompts(settings)
    own = _T5_MATRIX * 2 * 4 if wide else parameters * 4  # as it is stored, and converted, in four bytes at most
    passing = 2 * parameters if wide else 0
    return Stage(name="read prompt", flops=flops, weights=weights + own, working=0, passing=passing)


def _denoising(model: Description, settings: Sampling, tokens: int, size: int) -> Iterator[Stage]:
    """What is done once for the prompts, and all steps; with the weights left open."""
    config, text_tokens, prompts = model.transformer, _text_tokens(model), _prompts(settings)
    stored = (model.stored or torch.bfloat16).itemsize * config.num_layers * cost.block_parameters(config)
    rotation = 4 * tokens * config.width
    context = prompts * cost.context_numbers(config, text_tokens) * size + rotation
    flops = prompts * cost.prepare_flops(config, text_tokens)
    rounds, passes = _calls(model, settings, tokens)
    batch = prompts if tokens <= ONE_BATCH_TOKENS else 1
    yield Stage(
        name="prepare", flops=flops, weights=0, working=context + 3 * rotation, passing=stored * prompts // batch // 8
    )
    scratch = size * 4 * config.width**2  # a matrix product lays its weight out anew, one at a time
    values = batch * (cost.step_numbers(config, tokens) * size + 40 * tokens * config.in_channels)
    yield Stage(
        name=f"denoise, {passes} passes",
        flops=passes * cost.step_flops(config, tokens, text_tokens),
        weights=0,
        working=context + values + scratch,
        passing=stored * rounds,
    )


def _calls(model: Description, settings: Sampling, tokens: int) -> tuple[int, int]:
    """How often the transformer is called, and how many videos it is given in all of these calls together."""
    times, curve = settings.times, _curve(settings)
    if times is None:
        schedule = model.schedule.times(settings.steps, settings.shape.padded().latent().num_tokens)
        times = part_of(schedule, settings.skip_initial, settings.skip_final).tolist()
    end = settings.decode_timestep if settings.last_step == "decoder" else 0.0
    guidance = [curve.at(t) for t in times if t > end]
    passes = sum(1 + step.needs_negative + step.needs_weak for step in guidance)
    together = sum(step.needs_negative for step in guidance) if tokens <= ONE_BATCH_TOKENS else 0
    return passes - together, passes


def _given(request: GenerationRequest, grid: LatentShape) -> tuple[list[LatentShape], list[LatentShape]]:
    """What is encoded: what takes the place of the video's own tokens, and what brings more. Keyframes are pictures."""
    picture = replace(grid, frames=1)
    in_place = [grid] * (request.video is not None) + [picture] * (request.image is not None)
    return in_place, [grid] * (request.reference is not None) + [picture] * len(request.keyframes)


def _curve(settings: Sampling) -> GuidanceCurve:
    return guidance_curve(
        cfg=settings.cfg,
        stg=settings.stg,
        rescale=settings.rescale,
        skip_blocks=settings.skip_blocks,
        times=settings.guidance_times,
    )


def _prompts(settings: Sampling) -> int:
    return 1 + _curve(settings).needs_negative


def _text_tokens(model: Description) -> int:
    return 256 if model.transformer.caption_channels == _WIDE_CAPTION else 64
