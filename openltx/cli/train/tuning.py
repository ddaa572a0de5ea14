"""``openltx train lora`` and ``openltx train full``."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from openltx.cli.output import say
from openltx.cli.train.options import ONE_PROCESS, AllowChanges, MaxSeconds, ParallelFlags, Steps, Threads, limited
from openltx.errors import RunError
from openltx.recipes.tuning import FULL, LORA, BasePrecision, TuneRecipe
from openltx.training.config import RunConfig

if TYPE_CHECKING:
    from openltx.data.encoded import Encoded
    from openltx.models.bundle import LTXModel
    from openltx.pipelines.request import GenerationRequest
    from openltx.training.lora import Adapters
    from openltx.training.tuning import TuneTask

VALIDATION_VIDEOS = 2


@dataclass(frozen=True, kw_only=True)
class TuneFlags:
    """What to learn from, and what differs from the recipe."""

    captions: Path | None = None
    """A .csv, .jsonl or .json with the columns path, caption and, if there are any, reference (default: such a file in
    the folder, else walk.txt beside walk.mp4)."""
    references: Path | None = None
    """A folder with a reference clip of the same name for each video, for an in-context LoRA."""
    size: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable="")] = ()
    """WIDTHxHEIGHT that videos are made to be, multiples of 32; of several, each gets the nearest to its shape."""
    frames: int | None = None
    """At most so many frames of each video, 8k+1."""
    batch_size: int | None = None
    """Videos a batch."""
    lr: float | None = None
    """Learning rate."""
    prompts: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable="")] = ()
    """Prompts of the validation videos (default: the first captions of the data)."""
    validate_every: int | None = None
    """Make validation videos (and save the LoRA) every so many steps."""
    precision: BasePrecision | None = None
    """How the frozen weights of the base are held; int8 and float8 take a quarter of float32."""
    text_encoder: Path | None = None
    """The folder or file of a T5 v1.1 encoder, for models that come without one."""
    tokenizer: Path | None = None
    """Its tokenizer.json or spiece.model, if that is not beside it."""
    latents: Path | None = None
    """Where encoded videos are kept (default: in the run's folder)."""
    seed: int = 0
    """Of the weights, the batches and the noise."""


@dataclass(frozen=True, kw_only=True)
class LoRAFlags:
    """The shape of the LoRA."""

    rank: int | None = None
    """Freedom of each layer's change."""
    alpha: float | None = None
    """The change is scaled by alpha / rank (default: the rank)."""
    dropout: float | None = None
    """The part of each layer's inputs that the change does not see."""
    targets: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable="")] = ()
    """Ends of layer names: to_q, attn1.to_v, ff.net.2, ..."""


DEFAULT_TUNING, DEFAULT_LORA = TuneFlags(), LoRAFlags()


def lora(  # noqa: PLR0913 (a flag each)
    recipe: str,
    *,
    base: str,
    data: Path,
    out: Path = Path("outputs/lora"),
    shape: Annotated[LoRAFlags, Parameter(name="*")] = DEFAULT_LORA,
    tuning: Annotated[TuneFlags, Parameter(name="*")] = DEFAULT_TUNING,
    parallel: Annotated[ParallelFlags, Parameter(name="*")] = ONE_PROCESS,
    steps: Steps = None,
    max_seconds: MaxSeconds = None,
    threads: Threads = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Teach a model something new by a LoRA, from a folder of videos and pictures with captions.

    Writes OUT/lora.safetensors (names of diffusers) and OUT/lora-comfyui.safetensors; the same command goes on after an
    interruption.

    Parameters
    ----------
    recipe
        "playroom" (for the bundled model), "ltxv-2b", "ltxv-13b", or "ltxv-13b-ic" (an in-context LoRA).
    base
        The model: "playroom", a release that was pulled, or the path of a weight file or diffusers folder.
    data
        Folder of the videos.
    out
        Folder of the run: latents, checkpoints, samples, logs, the LoRA.
    """
    from openltx.distributed import ranks
    from openltx.training.lora import Adapters
    from openltx.training.state import load_weights
    from openltx.training.tuning import write_lora

    chosen = with_flags(_recipe(recipe, LORA), tuning)
    assert chosen.lora is not None, "recipes of this table have a LoRA"
    changes = {name: value for name, value in vars(shape).items() if value not in (None, ())}
    settings = dataclasses.replace(chosen.lora, **changes)
    with ranks.process_group(parallel.sequence):
        model = _frozen_base(base, chosen, tuning)
        adapters = Adapters(model.transformer, settings, tuning.seed)
        config = limited(chosen.run(out, tuning.seed), steps, max_seconds, threads)
        _train(_task(model, chosen, data, out, tuning, adapters), config, chosen, parallel, allow_changes)
        if ranks.is_main():
            adapters.load_state_dict(load_weights(out))
            for path in write_lora(adapters, out, "lora", model):
                print(path)


def full(
    recipe: str,
    *,
    base: str,
    data: Path,
    out: Path = Path("outputs/full"),
    tuning: Annotated[TuneFlags, Parameter(name="*")] = DEFAULT_TUNING,
    parallel: Annotated[ParallelFlags, Parameter(name="*")] = ONE_PROCESS,
    steps: Steps = None,
    max_seconds: MaxSeconds = None,
    threads: Threads = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train all weights of a model's transformer on a folder of videos and pictures with captions.

    Writes OUT/model.safetensors, a whole model in the official layout; the same command goes on after an interruption.

    Parameters
    ----------
    recipe
        "playroom" (for the bundled model) or "ltxv-2b".
    base
        The model: "playroom", a release that was pulled, or the path of a weight file or diffusers folder.
    data
        Folder of the videos.
    out
        Folder of the run: latents, checkpoints, samples, logs, the model.
    """
    from openltx.distributed import ranks
    from openltx.training.export import export_tuned

    chosen = with_flags(_recipe(recipe, FULL), tuning)
    with ranks.process_group(parallel.sequence):
        model = _load(base, "float32", tuning)
        for parameter in model.transformer.parameters():
            parameter.data = parameter.data.clone()  # it may lie in the pages of the weight file
        model.transformer.requires_grad_(True)
        config = limited(chosen.run(out, tuning.seed), steps, max_seconds, threads)
        _train(_task(model, chosen, data, out, tuning, None), config, chosen, parallel, allow_changes)
        if ranks.is_main():
            export_tuned(out / "model.safetensors", out, model)
            print(out / "model.safetensors")


def with_flags(recipe: TuneRecipe, flags: TuneFlags) -> TuneRecipe:
    """The recipe with what the command line says instead."""
    from openltx.data.encoded import Size
    from openltx.pipelines.request import parse_size

    frames = flags.frames or recipe.sizes[0].frames
    pairs = [parse_size(size) for size in flags.size] or [(size.width, size.height) for size in recipe.sizes]
    tune = dataclasses.replace(recipe.tune, seed=flags.seed, batch_size=flags.batch_size or recipe.tune.batch_size)
    return dataclasses.replace(
        recipe,
        sizes=tuple(Size(width=width, height=height, frames=frames) for width, height in pairs),
        tune=tune,
        precision=flags.precision or recipe.precision,
        optim=dataclasses.replace(recipe.optim, lr=flags.lr or recipe.optim.lr),
        sample_every=flags.validate_every or recipe.sample_every,
    )


def _load(base: str, precision: Literal["float32", "bfloat16"], flags: TuneFlags) -> "LTXModel":
    from openltx.errors import CheckpointError
    from openltx.pipelines.residency import load

    model = load(base, precision=precision, text_encoder=flags.text_encoder, tokenizer=flags.tokenizer)
    if model.text is None:
        raise CheckpointError(
            f'The model "{base}" comes without a text encoder, and captions must be encoded: give its T5 with '
            "--text-encoder PATH."
        )
    return model


def _frozen_base(base: str, recipe: TuneRecipe, flags: TuneFlags) -> "LTXModel":
    from openltx.training.frozen import freeze_in_eight_bits

    model = _load(base, "float32" if recipe.precision == "float32" else "bfloat16", flags)
    if recipe.precision in ("int8", "float8"):
        freeze_in_eight_bits(model.transformer, recipe.precision)
    return model


def _task(
    model: "LTXModel", recipe: TuneRecipe, data: Path, out: Path, flags: TuneFlags, adapters: "Adapters | None"
) -> "TuneTask":
    from openltx.cli.eval.output import progress
    from openltx.data.captioned import captioned_videos
    from openltx.data.encoded import encode_videos
    from openltx.distributed import ranks
    from openltx.training.tuning import TuneTask

    assert model.text is not None, "checked when it was loaded"
    videos = captioned_videos(data, flags.captions, flags.references)
    if recipe.references and not all(video.reference for video in videos):
        raise RunError(
            "An in-context LoRA learns from pairs: give a folder of reference clips with --references, or a column "
            "reference in the captions."
        )
    cache = flags.latents or out / "latents"
    if ranks.world_size() > 1:  # every process encodes its part, then all read all of them
        mine = videos[ranks.rank() :: ranks.world_size()]
        if mine:
            encode_videos(mine, cache, model.vae, model.text, recipe.sizes)
        ranks.wait_for_all()
    with progress("Encoding") as tick:
        examples, rejected = encode_videos(videos, cache, model.vae, model.text, recipe.sizes, tick)
    for rejection in rejected if ranks.is_main() else ():
        say(f"not used: {rejection.source}: {rejection.reason}")
    return TuneTask(
        model, examples, recipe.tune, recipe.optim, adapters=adapters, validation=_validation(examples, flags)
    )


def _validation(examples: "Sequence[Encoded]", flags: TuneFlags) -> "list[GenerationRequest]":
    """Requests of the first examples' size, with their references, for the prompts that are asked for."""
    from openltx.geometry import LatentShape
    from openltx.pipelines.request import GenerationRequest

    prompts = flags.prompts or tuple(example.caption for example in examples[:VALIDATION_VIDEOS])
    requests = []
    for seed, prompt in enumerate(prompts):
        example = examples[seed % len(examples)]
        _, f, h, w = example.latents.shape
        shape = LatentShape(frames=f, height=h, width=w).video(example.fps)
        requests.append(
            GenerationRequest(
                prompt,
                reference=example.source.reference,
                frames=shape.frames,
                size=f"{shape.width}x{shape.height}",
                fps=shape.fps,
                seed=seed,
            )
        )
    return requests


def _train(
    task: "TuneTask", config: RunConfig, recipe: TuneRecipe, parallel: ParallelFlags, allow_changes: bool
) -> None:
    from openltx.distributed.shard import Parallel, spread
    from openltx.training import loop

    chosen = Parallel(shard=parallel.shard, sequence=parallel.sequence, recompute=recipe.recompute)
    loop.run(
        task,
        config,
        allow_changes=allow_changes,
        distribute=lambda: spread(task.model.transformer, chosen),
        sequence=parallel.sequence,
    )


def _recipe(name: str, recipes: Mapping[str, TuneRecipe]) -> TuneRecipe:
    if name not in recipes:
        raise RunError(f'There is no recipe "{name}" for this. The recipes are: {", ".join(recipes)}.')
    return recipes[name]
