"""What `openltx generate` and `openltx serve` are told of two passes, and the generator that they ask for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from openltx.checkpoints.zoo import find_release, names_a_path, require_local
from openltx.errors import RequestError
from openltx.models.bundle import LTXModel
from openltx.pipelines.plan import Residency
from openltx.pipelines.residency import Device, Precision, load
from openltx.pipelines.two_pass import TwoPass, TwoPassGenerator, settings_from_json
from openltx.pipelines.upscale import load_upscaler
from openltx.recipes.generate import Recipe


@dataclass(frozen=True, kw_only=True)
class UpscalerFlags:
    """A video in two passes: small first, enlarged, refined. With a video given, only the second."""

    upscaler: str | None = None
    """Make the video in two passes with this spatial upscaler, a file or a released one that was pulled; or enlarge and
    refine the given video. Releases made for two passes bring their own."""
    second_model: str | None = None
    """The model of the second pass, if it is another."""
    downscale: float | None = None
    """How much smaller than asked for the first pass is, in width and height; 2/3 if left out."""
    first_pass: tuple[str, ...] = ()
    """Settings of the first pass alone, as NAME=VALUE with a value in JSON: steps=30 skip_final=3."""
    second_pass: tuple[str, ...] = ()
    """Settings of the second pass alone: "times=[0.9094, 0.725, 0.4219]" tone_map=0.6."""

    def absolute(self) -> "UpscalerFlags":
        """The same files for a process that works in another folder."""
        named = {name: value for name in ("upscaler", "second_model") if (value := getattr(self, name)) is not None}
        return replace(self, **{name: absolute_if_file(value) for name, value in named.items()})

    def over(self, passes: TwoPass) -> TwoPass:
        """These flags laid over the settings of a model's two passes."""
        return TwoPass(
            downscale=passes.downscale if self.downscale is None else self.downscale,
            first={**passes.first, **parse_settings(self.first_pass)},
            second={**passes.second, **parse_settings(self.second_pass)},
        )

    def plan(self, recipe: Recipe | None) -> tuple[Path, TwoPass] | None:
        """The upscaler's file and the settings of both passes, or None for one pass; ``recipe`` is the model's own."""
        own = None if recipe is None else recipe.two_pass
        upscaler = self.upscaler or (recipe.upscaler if recipe is not None and own is not None else None)
        if upscaler is not None:
            return located(upscaler), self.over(own or TwoPass())
        given = [flag.name for flag in fields(self) if getattr(self, flag.name) != flag.default]
        if given:
            raise RequestError(
                f"{', '.join(given)} is for two passes, which need an upscaler: name its file too (--upscaler FILE)."
            )
        return None

    def open(
        self,
        model: LTXModel,
        upscaler_file: Path,
        passes: TwoPass,
        *,
        device: Device,
        precision: Precision,
        residency: Residency = "resident",
    ) -> TwoPassGenerator:
        """The generator, with upscaler and second model loaded."""
        upscaler, second = load_upscaler(upscaler_file, model.vae), None
        if self.second_model is not None:
            second = load(self.second_model, device=device, precision=precision, residency=residency)
        return TwoPassGenerator(model, upscaler, passes, second_model=second)


def located(upscaler: str | Path) -> Path:
    """The file of an upscaler: that of a release by name, which must have been pulled, or the path itself."""
    if names_a_path(upscaler):
        return Path(upscaler)
    return require_local(find_release(str(upscaler), "upscaler"))


def absolute_if_file(name: str) -> str:
    """The whole path of a file or folder that is there; other names as they are."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """From NAME=VALUE with values in JSON, or plain words."""
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise RequestError(f'"{word}" is not a setting of a pass: write NAME=VALUE, for example steps=30.')
        try:
            settings[name.strip().replace("-", "_")] = json.loads(text)
        except ValueError:
            settings[name.strip().replace("-", "_")] = text.strip()
    return settings_from_json(settings)
