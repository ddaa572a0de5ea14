"""The flags that say which model makes a video, and how it is loaded."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from openltx.checkpoints.load import describe
from openltx.cli.two_pass import UpscalerFlags
from openltx.errors import RequestError
from openltx.pipelines.check import check_request
from openltx.pipelines.generate import Generator
from openltx.pipelines.loras import LoRAMode
from openltx.pipelines.plan import Residency
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision, load, require_room_for
from openltx.pipelines.two_pass import TwoPass, TwoPassGenerator
from openltx.pipelines.windows import Windows
from openltx.recipes.generate import Recipe, recipe, recipe_of
from openltx.recipes.official import read_official


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model, and how it is loaded."""

    model: str | None = None
    """"playroom" (bundled, and taken if nothing is said), a released model that was pulled (`openltx models`), or the
    path of a weight file or folder."""
    recipe: str | None = None
    """Sample the model as this release; a released file under its own name needs no word."""
    config: Path | None = None
    """Settings (and, without --model, the model) from a YAML file of the official code."""
    single_pass: Annotated[bool, Parameter(negative=())] = False
    """One pass at full size, where the release is made for two with an upscaler between them."""
    lora: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable="")] = ()
    """LoRA files, FILE or FILE:STRENGTH, as many as you like. Strength 1 is as trained, below 0 leads away from it."""
    lora_mode: LoRAMode = "auto"
    """merged: add LoRAs to the weights; applied: compute them beside the weights, which costs time and rounds no
    weight; auto: applied with int8 and with weights that are not resident, else merged."""
    text_encoder: Path | None = None
    """The folder or file of a T5 v1.1 encoder (.safetensors or .gguf), for models that come without one."""
    tokenizer: Path | None = None
    """Its tokenizer.json or spiece.model, if that is not beside it."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, else MPS, else the CPU. Known limits: float16 overflows in these networks and
    is never used; mps needs a torch whose 3D convolutions are right there (2.5 had wrong ones)."""
    precision: Precision = "auto"
    """Number format; auto takes bfloat16 where the hardware computes in it, else float32. int8 is for CPUs: half the
    memory of bfloat16 in the transformer's blocks."""
    residency: Residency = "resident"
    """What is in memory: the whole model (resident); text encoder, transformer and VAE in turn (offloaded); of the
    transformer, one block after the other (streamed). The same video; less memory, and more reading from the disk."""
    compile: Annotated[bool, Parameter(negative=())] = False
    """Let torch.compile fuse the transformer's blocks (accelerators only): the first step waits for it."""

    def choose(self, upscaling: UpscalerFlags | None, windows: Windows | None) -> "Choice":
        """What will make the video: in two passes if that is asked for, or if the release is made so."""
        official = None if self.config is None else read_official(self.config)
        name = self.model or ("playroom" if official is None else str(official.model))
        settings = official or (recipe(self.recipe) if self.recipe is not None else recipe_of(name))
        if windows is not None and upscaling is not None:
            raise RequestError("A video in windows is made in one pass: leave the upscaler's flags out, or --window.")
        single = self.single_pass or windows is not None
        plan = (upscaling or UpscalerFlags()).plan(None if single else settings)
        return Choice(name=name, official=official, flags=self, upscaling=upscaling, plan=plan, windows=windows)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model and how it is used, before it is loaded."""

    name: str
    official: Recipe | None
    flags: ModelFlags
    upscaling: UpscalerFlags | None
    plan: tuple[Path, TwoPass] | None
    windows: Windows | None

    def check(self, request: GenerationRequest) -> None:
        """Raise now for what can be known before anything is loaded. Two passes have their own check."""
        if self.plan is not None:
            return
        model = describe(self.name, self.flags.recipe)
        if self.official is not None:
            official = self.official
            model = replace(model, sampling=dict(official.sampling), schedule=official.schedule or model.schedule)
        request = check_request(model.sampling, request, self.windows)
        flags = self.flags
        require_room_for(model, request, device=flags.device, precision=flags.precision, residency=flags.residency)

    def open(self) -> Generator | TwoPassGenerator:
        """The ``Generator`` (or ``TwoPassGenerator``), loaded, saying so meanwhile."""
        flags = self.flags
        with Console(stderr=True).status(f"Loading {self.name} ..."):
            model = load(
                self.name,
                device=flags.device,
                precision=flags.precision,
                residency=flags.residency,
                compile=flags.compile,
                recipe=flags.recipe,
                loras=flags.lora,
                lora_mode=flags.lora_mode,
                text_encoder=flags.text_encoder,
                tokenizer=flags.tokenizer,
            )
        if self.official is not None:
            for note in self.official.notes:
                print(f"{flags.config}: {note}", file=sys.stderr)
            model = self.official.apply(model)
        if self.plan is None:
            return Generator(model)
        return (self.upscaling or UpscalerFlags()).open(
            model, *self.plan, device=flags.device, precision=flags.precision, residency=flags.residency
        )
