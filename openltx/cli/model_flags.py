"""The flags that say which model makes a video, and how it is loaded."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from openltx.cli.two_pass import UpscalerFlags
from openltx.pipelines.generate import Generator
from openltx.pipelines.loras import LoRAMode
from openltx.pipelines.residency import Device, Precision, load
from openltx.pipelines.two_pass import TwoPassGenerator
from openltx.recipes.generate import recipe, recipe_of
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
    weight; auto: applied with int8, else merged."""
    text_encoder: Path | None = None
    """The folder or file of a T5 v1.1 encoder (.safetensors or .gguf), for models that come without one."""
    tokenizer: Path | None = None
    """Its tokenizer.json or spiece.model, if that is not beside it."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, else MPS, else the CPU."""
    precision: Precision = "auto"
    """Number format; auto takes bfloat16 where the hardware computes in it, else float32. int8 is for CPUs: half the
    memory of bfloat16 in the transformer's blocks."""
    compile: Annotated[bool, Parameter(negative=())] = False
    """Let torch.compile fuse the transformer's blocks (accelerators only): the first step waits for it."""

    def open(self, two_pass: UpscalerFlags | None = None) -> Generator | TwoPassGenerator:
        """Load what the flags name, saying so meanwhile: in two passes if asked for, or if the release is made so."""
        official = None if self.config is None else read_official(self.config)
        name = self.model or ("playroom" if official is None else str(official.model))
        settings = official or (recipe(self.recipe) if self.recipe is not None else recipe_of(name))
        flags = two_pass or UpscalerFlags()
        plan = flags.plan(None if self.single_pass else settings)
        with Console(stderr=True).status(f"Loading {name} ..."):
            model = load(
                name,
                device=self.device,
                precision=self.precision,
                compile=self.compile,
                recipe=self.recipe,
                loras=self.lora,
                lora_mode=self.lora_mode,
                text_encoder=self.text_encoder,
                tokenizer=self.tokenizer,
            )
        if official is not None:
            for note in official.notes:
                print(f"{self.config}: {note}", file=sys.stderr)
            model = official.apply(model)
        return Generator(model) if plan is None else flags.open(model, *plan, self.device, self.precision)
