"""What to generate: one schema for the Python arguments, the command line's flags and the JSON inside a file.

A field that is left open (None) means "as the model prefers"; ``resolve`` fills it from the model's own ``Sampling``
and draws the seed, so that a resolved request says everything that made a video. The string under a field is its
documentation and the help text of its flag.
"""

import json
import math
import re
import secrets
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from openltx.errors import RequestError
from openltx.geometry import VideoShape

Fit = Literal["exact", "pad"]
LastStep = Literal["decoder", "renoise"]

LAST_STEP_MAX_T = 0.2
"""The noise level up to which the decoder has learned to denoise (paper 2.1.1)."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One video to make; raises ``RequestError`` where a value makes no sense by itself."""

    prompt: str = field(kw_only=False)
    """What the video shows, in a sentence or a few."""
    image: Path | str | None = None
    """A picture that the video starts from; it is scaled and cropped to the size."""
    image_strength: float = 1.0
    """How firmly the first frame is held to the picture, above 0 and up to 1."""
    negative: str = ""
    """What the video should keep away from."""
    frames: int | None = None
    """Number of frames, 8k+1."""
    size: str | None = None
    """WIDTHxHEIGHT in pixels, both multiples of 32."""
    fps: float | None = None
    """Frames a second."""
    steps: int | None = None
    """Denoising steps: more is slower and usually better."""
    cfg: float | None = None
    """How strongly the video follows the prompt; 1 turns guidance off and halves the time."""
    rescale: float | None = None
    """How far guidance keeps the contrast of the unguided video, 0 to 1."""
    seed: int | None = None
    """The same seed and request give the same video; drawn and stated if left out."""
    fit: Fit = "exact"
    """A size off the grid is refused (exact), or made larger and cropped back (pad)."""
    last_step: LastStep | None = None
    """Who denoises last: the VAE's decoder, or the transformer with a little fresh noise for the decoder."""
    decode_timestep: float | None = None
    """Noise level that the decoder is told; with last_step=decoder the sampler stops there (0 to 0.2)."""
    decode_noise_scale: float | None = None
    """Fresh noise mixed in before decoding with last_step=renoise, 0 to 1."""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise RequestError(
                'The prompt is empty. Say what the video shows, for example "a red ball bounces on a checkered floor".'
            )
        if self.size is not None:
            parse_size(self.size)
        for name, (accepts, wanted) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not accepts(value):
                raise RequestError(f"{name}={value} is not possible: it must be {wanted}.")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise RequestError(f"{name}={value!r} is not possible: choose {' or '.join(map(repr, choices))}.")

    def settings(self, defaults: "Sampling") -> "Sampling":
        """The model's ``defaults`` with this request's own wishes laid over them."""
        wishes = {f.name: getattr(self, f.name) for f in fields(Sampling) if f.name not in ("width", "height")}
        if self.size is not None:
            wishes["width"], wishes["height"] = parse_size(self.size)
        return replace(defaults, **{name: wish for name, wish in wishes.items() if wish is not None})

    def resolve(self, defaults: "Sampling") -> "GenerationRequest":
        """The same request with nothing left open: ``defaults`` filled in, the seed drawn, the size checked.

        Raises ``RequestError`` naming the nearest valid numbers if the size is off the grid and ``fit`` is "exact".
        """
        settings = self.settings(defaults)
        if self.fit == "exact":
            settings.shape.require_on_grid()
        if settings.last_step == "decoder" and not 0 < settings.decode_timestep <= LAST_STEP_MAX_T:
            raise RequestError(
                f"With last_step=decoder the decoder denoises from t={settings.decode_timestep}, but it has learned "
                f"that only above 0 and up to {LAST_STEP_MAX_T}. Choose such a decode_timestep, or last_step=renoise."
            )
        filled = asdict(settings)
        size = f"{filled.pop('width')}x{filled.pop('height')}"
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed
        return replace(self, size=size, seed=seed, **filled)

    def to_json(self) -> str:
        """This request as one JSON object."""
        values = asdict(self)
        values["image"] = None if self.image is None else str(self.image)
        return json.dumps(values)

    @staticmethod
    def from_json(text: str) -> "GenerationRequest":
        """The inverse of ``to_json``; raises ``RequestError`` for anything that is not a request."""
        try:
            values = json.loads(text)
            return GenerationRequest(**values)
        except (TypeError, ValueError) as error:
            raise RequestError(f"This is not a generation request: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a model is sampled where a request leaves it open; the names are those of ``GenerationRequest``.

    A checkpoint states its own in its metadata. The defaults here are for one that states none, as the releases do:
    they are what the 2B releases were published with.
    """

    frames: int = 121
    width: int = 1216
    height: int = 704
    fps: float = 30.0
    steps: int = 40
    cfg: float = 3.0
    rescale: float = 0.0
    last_step: LastStep = "renoise"
    decode_timestep: float = 0.05
    decode_noise_scale: float = 0.025

    @property
    def shape(self) -> VideoShape:
        """The size of the video that is handed over, on the grid or not."""
        return VideoShape(frames=self.frames, height=self.height, width=self.width, fps=self.fps)


def parse_size(size: str) -> tuple[int, int]:
    """(width, height) from "WIDTHxHEIGHT"; raises ``RequestError`` for anything else."""
    match = re.fullmatch(r"\s*(\d+)\s*[xX×]\s*(\d+)\s*", size)
    if match is None or "0" in (match[1], match[2]):
        raise RequestError(f'size="{size}" is not a size: write WIDTHxHEIGHT in pixels, for example 128x128.')
    return int(match[1]), int(match[2])


_RANGES = {
    "image_strength": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "frames": (lambda v: v >= 1, "at least 1 (8k+1: 1, 9, 17, 25, ...)"),
    "fps": (lambda v: 0 < v < math.inf, "above 0"),
    "steps": (lambda v: v >= 1, "at least 1"),
    "cfg": (lambda v: 1 <= v < math.inf, "at least 1 (1 turns guidance off)"),
    "rescale": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "seed": (lambda v: 0 <= v < 2**63, "from 0 to 2^63 - 1"),
    "decode_timestep": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "decode_noise_scale": (lambda v: 0 <= v <= 1, "from 0 to 1"),
}
_CHOICES = {"fit": ("exact", "pad"), "last_step": ("decoder", "renoise")}
