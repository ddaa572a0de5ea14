"""The flags of ``openltx generate`` for two passes, and the generator they ask for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from openltx.errors import RequestError
from openltx.models.bundle import LTXModel
from openltx.pipelines.residency import Device, Precision, load
from openltx.pipelines.two_pass import TwoPass, TwoPassGenerator, settings_from_json
from openltx.pipelines.upscale import load_upscaler


@dataclass(frozen=True, kw_only=True)
class UpscalerFlags:
    """A video in two passes: small first, enlarged, refined. With a video given, only the second."""

    upscaler: Path | None = None
    """Make the video in two passes with this spatial upscaler; or enlarge and refine the given video."""
    second_model: str | None = None
    """The model of the second pass, if it is another."""
    downscale: float | None = None
    """How much smaller than asked for the first pass is, in width and height; 2/3 if left out."""
    first_pass: tuple[str, ...] = ()
    """Settings of the first pass alone, as NAME=VALUE with a value in JSON: steps=30 skip_final=3."""
    second_pass: tuple[str, ...] = ()
    """Settings of the second pass alone: "times=[0.9094, 0.725, 0.4219]" tone_map=0.6."""

    def __post_init__(self) -> None:
        given = [flag.name for flag in fields(self) if getattr(self, flag.name) != flag.default]
        if given and self.upscaler is None:
            raise RequestError(
                f"{', '.join(given)} is for two passes, which need an upscaler: name its file too (--upscaler FILE)."
            )

    def over(self, passes: TwoPass) -> TwoPass:
        """These flags laid over the settings of a model's two passes."""
        return TwoPass(
            downscale=passes.downscale if self.downscale is None else self.downscale,
            first={**passes.first, **parse_settings(self.first_pass)},
            second={**passes.second, **parse_settings(self.second_pass)},
        )

    def open(self, model: LTXModel, device: Device, precision: Precision) -> TwoPassGenerator:
        """Load upscaler and second model, saying so meanwhile."""
        passes = self.over(TwoPass())
        assert self.upscaler is not None
        with Console(stderr=True).status(f"Loading {self.upscaler} ..."):
            upscaler = load_upscaler(self.upscaler, model.vae)
            second = None
            if self.second_model is not None:
                second = load(self.second_model, device=device, precision=precision)
        return TwoPassGenerator(model, upscaler, passes, second_model=second)


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
