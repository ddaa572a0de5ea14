"""Which model makes videos, and how it is loaded: what `openltx generate` and `openltx serve` are told."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from openltx.checkpoints.load import Description, describe
from openltx.errors import RequestError
from openltx.pipelines.check import check_request
from openltx.pipelines.generate import Generator
from openltx.pipelines.loras import LoRAMode
from openltx.pipelines.plan import Plan, Residency, plan
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples
from openltx.pipelines.residency import Device, Precision, choose_device, load, placement_of, require_room_for
from openltx.pipelines.two_pass import TwoPass, TwoPassGenerator, first_request, first_side, second_request
from openltx.pipelines.windows import Windows
from openltx.recipes.generate import Recipe, recipe, recipe_of
from openltx.recipes.official import read_official
from openltx.recipes.upscaling import UpscalerFlags, absolute_if_file


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
    single_pass: bool = False
    """One pass at full size, where the release is made for two with an upscaler between them."""
    lora: tuple[str, ...] = ()
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
    compile: bool = False
    """Let torch.compile fuse the transformer's blocks (accelerators only): the first step waits for it."""

    def absolute(self) -> "ModelFlags":
        """The same files for a process that works in another folder."""
        given = {name: value.absolute() for name in _PATHS if (value := getattr(self, name)) is not None}
        model = None if self.model is None else absolute_if_file(self.model)
        return replace(self, model=model, lora=tuple(str(Path(each).absolute()) for each in self.lora), **given)

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


_PATHS = ("config", "text_encoder", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model and how it is used, before it is loaded."""

    name: str
    official: Recipe | None
    flags: ModelFlags
    upscaling: UpscalerFlags | None
    plan: tuple[Path, TwoPass] | None
    windows: Windows | None

    @cached_property
    def description(self) -> Description:
        """The model from its headers, with the settings that are used for it."""
        model = describe(self.name, self.flags.recipe)
        if self.official is None:
            return model
        official = self.official
        return replace(model, sampling=dict(official.sampling), schedule=official.schedule or model.schedule)

    def check(self, request: GenerationRequest) -> None:
        """Raise now for what can be known before anything is loaded. Two passes have their own check."""
        if self.plan is not None:
            return
        model, flags = self.description, self.flags
        request = check_request(model.sampling, request, self.windows)
        require_room_for(model, request, device=flags.device, precision=flags.precision, residency=flags.residency)

    def plans(self, request: GenerationRequest) -> tuple[Plan, ...]:
        """What each pass takes on this machine; raises ``RequestError`` for what cannot be made."""
        model, flags = self.description, self.flags
        place = placement_of(flags.precision, choose_device(flags.device))
        if self.plan is None:
            return (plan(model, request, place, flags.residency),)
        other = None if self.upscaling is None else self.upscaling.second_model
        second_model, (_, passes) = model if other is None else describe(other), self.plan
        settings = request.settings(Sampling(**as_tuples(model.sampling)))
        framing = settings.shape.padded()
        request = replace(request, size=f"{settings.width}x{settings.height}", frames=settings.frames, fps=settings.fps)
        width, height = first_side(framing.width, passes), first_side(framing.height, passes)
        defaults = Sampling(**as_tuples(second_model.sampling))
        second = second_request(request, passes, defaults, 2 * width, 2 * height)
        whole = plan(second_model, second, place, flags.residency, has_latents=True)
        if request.video is not None:
            return (whole,)
        small = plan(model, first_request(request, passes, width, height), place, flags.residency)
        return replace(small, stages=small.stages[:-1]), whole  # the first pass is not decoded

    def open(self) -> Generator | TwoPassGenerator:
        """The ``Generator`` (or ``TwoPassGenerator``), loaded."""
        flags = self.flags
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
            model = self.official.apply(model)
        if self.plan is None:
            return Generator(model)
        return (self.upscaling or UpscalerFlags()).open(
            model, *self.plan, device=flags.device, precision=flags.precision, residency=flags.residency
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was asked for and is not done, a sentence each."""
        return () if self.official is None else tuple(f"{self.flags.config}: {note}" for note in self.official.notes)
