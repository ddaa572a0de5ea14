"""What to generate: one schema for the Python arguments, the command line's flags and the JSON inside a file.

A field that is left open (None) means "as the model prefers"; ``resolve`` fills it from the model's own ``Sampling``
and draws the seed, so that a resolved request says everything that made a video. The string under a field is its
documentation and the help text of its flag.
"""

import itertools
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from openltx.errors import RequestError
from openltx.geometry import VideoShape
from openltx.models.transformer import SkipMode
from openltx.pipelines.draws import NoiseLayout

Fit = Literal["exact", "pad"]
LastStep = Literal["decoder", "renoise"]

LAST_STEP_MAX_T = 0.2
"""The noise level up to which the decoder has learned to denoise (paper 2.1.1)."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One video to make; raises ``RequestError`` where a value makes no sense by itself."""

    prompt: str = field(default="", kw_only=False)
    """What the video shows, in a sentence or a few."""
    prompt_embeds: Path | str | None = None
    """A file of `openltx embed` with the prompt and the negative one already encoded."""
    image: Path | str | None = None
    """A picture that the video starts from; it is scaled and cropped to the size."""
    image_strength: float = 1.0
    """How firmly the first frame is held to the picture, above 0 and up to 1."""
    image_crf: int | None = None
    """Soften and compress given pictures like video of this H.264 quality (29 is usual, 0 is off)."""
    keyframes: tuple[str, ...] = ()
    """Pictures and clips on the way: FILE@FRAME, FILE@FRAME:STRENGTH, FILE[FIRST:END]@FRAME; frame -1 is the last."""
    video: Path | str | None = None
    """A video to start from instead of noise, with skip_initial; or to edit in place, with a mask."""
    mask: Path | str | None = None
    """A picture or video that is white where the given video is to be made anew."""
    reference: Path | str | None = None
    """A clip for IC-LoRAs to look at: depth, poses, edges, or a video to refine."""
    negative: str | None = None
    """What the video should keep away from."""
    frames: int | None = None
    """Number of frames, 8k+1."""
    size: str | None = None
    """WIDTHxHEIGHT in pixels, both multiples of 32."""
    fps: float | None = None
    """Frames a second."""
    steps: int | None = None
    """Denoising steps: more is slower and usually better."""
    cfg: float | tuple[float, ...] | None = None
    """How strongly the video follows the prompt; 1 turns guidance off and halves the time."""
    cfg_star: bool | None = None
    """Project the negative prompt's velocity onto the prompt's before guiding."""
    stg: float | tuple[float, ...] | None = None
    """How strongly to move away from a weakened network (spatio-temporal guidance); 0 is off."""
    stg_mode: SkipMode | None = None
    """What is left out in the weakened network's blocks."""
    skip_blocks: tuple[int, ...] | tuple[tuple[int, ...], ...] | None = None
    """The blocks that are weakened for stg."""
    rescale: float | tuple[float, ...] | None = None
    """How far guidance keeps the contrast of the unguided video, 0 to 1."""
    guidance_times: tuple[float, ...] | None = None
    """Falling times t; cfg, stg, rescale and skip_blocks may then be lists with one value for each."""
    times: tuple[float, ...] | None = None
    """The falling times t at which the transformer is called, from 1 down, instead of the model's schedule."""
    skip_initial: int | None = None
    """Leave out so many steps at the start; there must be something to start from."""
    skip_final: int | None = None
    """Leave out so many steps at the end: the last one that is taken goes all the way."""
    stochastic: bool | None = None
    """Fresh noise after every step, as some distilled models want it."""
    image_noise: float | None = None
    """Noise on given pictures while the video forms, so that they do not hold it still (0.15 is usual, 0 is off)."""
    cache_threshold: float | None = None
    """Leave out all blocks but the first in steps where that one changes by less than this part; 0 is off."""
    tone_map: float | None = None
    """Pull in large latents before decoding, 0 (off) to 1."""
    seed: int | None = None
    """The same seed and request give the same video; drawn and stated if left out."""
    noise_layout: NoiseLayout = "openltx"
    """The order in which the seed's numbers are drawn: openltx's own, or the official code's on a CPU."""
    fit: Fit = "exact"
    """A size off the grid is refused (exact), or made larger and cropped back (pad)."""
    tile: int | None = None
    """Decode in tiles of so many pixels, faded where they overlap; 0 never does. Left out: only if memory needs it."""
    last_step: LastStep | None = None
    """Who denoises last: the VAE's decoder, or the transformer with a little fresh noise for the decoder."""
    decode_timestep: float | None = None
    """Noise level that the decoder is told; with last_step=decoder the sampler stops there (0 to 0.2)."""
    decode_noise_scale: float | None = None
    """Fresh noise mixed in before decoding with last_step=renoise, 0 to 1."""
    original_prompt: str | None = None
    """The prompt as it was given, where it was enhanced afterwards; kept for the record, no model reads it."""

    def __post_init__(self) -> None:
        if not self.prompt.strip() and self.prompt_embeds is None:
            raise RequestError(
                'The prompt is empty. Say what the video shows, for example "a red ball bounces on a checkered floor".'
            )
        if self.size is not None:
            parse_size(self.size)
        for name, (accepts, wanted) in _RANGES.items():
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            if not all(accepts(one) for one in values):
                raise RequestError(f"{name}={value} is not possible: it must be {wanted}.")
        for name in ("times", "guidance_times"):
            value = getattr(self, name)
            if value is not None and (not value or any(a <= b for a, b in itertools.pairwise(value))):
                raise RequestError(f"{name}={value} is not possible: times fall from one to the next.")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise RequestError(f"{name}={value!r} is not possible: choose {' or '.join(map(repr, choices))}.")

    def settings(self, defaults: "Sampling") -> "Sampling":
        """The model's ``defaults`` with this request's own wishes laid over them."""
        wishes = {f.name: getattr(self, f.name) for f in fields(Sampling) if f.name not in ("width", "height")}
        if self.size is not None:
            wishes["width"], wishes["height"] = parse_size(self.size)
        if self.steps is not None and self.times is None:  # not the model's own times, then
            defaults = replace(defaults, times=None)
        return replace(defaults, **{name: wish for name, wish in wishes.items() if wish is not None})

    def resolve(self, defaults: "Sampling", *, has_latents: bool = False) -> "GenerationRequest":
        """The same request with nothing left open: ``defaults`` filled in, the seed drawn, the size checked.

        ``has_latents``: there are latents to start from. Raises ``RequestError`` naming the nearest valid numbers if
        the size is off the grid and ``fit`` is "exact".
        """
        settings = self.settings(defaults)
        if self.fit == "exact":
            settings.shape.require_on_grid()
        if settings.last_step == "decoder" and not 0 < settings.decode_timestep <= LAST_STEP_MAX_T:
            raise RequestError(
                f"With last_step=decoder the decoder denoises from t={settings.decode_timestep}, but it has learned "
                f"that only above 0 and up to {LAST_STEP_MAX_T}. Choose such a decode_timestep, or last_step=renoise."
            )
        self._require_start(settings, has_latents)
        filled = asdict(settings)
        if settings.times is not None:
            filled["steps"] = len(settings.times)
        size = f"{filled.pop('width')}x{filled.pop('height')}"
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed
        return replace(self, size=size, seed=seed, **filled)

    def _require_start(self, settings: "Sampling", has_latents: bool) -> None:
        """Raise ``RequestError`` unless a part of the schedule and something to start from go together."""
        if self.mask is not None and self.video is None:
            raise RequestError("A mask says what to make anew in a video, but none is given: add video.")
        partial = settings.skip_initial > 0 or (settings.times is not None and settings.times[0] < 1)
        if partial and self.video is None and not has_latents:
            raise RequestError(
                "To leave out the first steps (skip_initial, or times below 1) there must be a video to start from: "
                "give one with video."
            )
        if (self.video is not None or has_latents) and not partial and self.mask is None:
            raise RequestError(
                "A video is given, but from t = 1 on it would be all noise: leave out first steps with skip_initial, "
                "or say with a mask what to make anew."
            )

    def to_json(self) -> str:
        """This request as one JSON object."""
        values = asdict(self)
        for name in ("image", "video", "mask", "reference", "prompt_embeds"):
            values[name] = None if values[name] is None else str(values[name])
        return json.dumps(values)

    @staticmethod
    def from_json(text: str) -> "GenerationRequest":
        """The inverse of ``to_json``; raises ``RequestError`` for anything that is not a request."""
        try:
            values = dict(json.loads(text))
            if "prompt" not in values:
                raise TypeError("it has no prompt")
            return GenerationRequest(**as_tuples(values))
        except (TypeError, ValueError) as error:
            raise RequestError(f"This is not a generation request: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a model is sampled where a request leaves it open; the names are those of ``GenerationRequest``.

    A checkpoint states its own in its metadata. The defaults here are for one that states none, as the releases do:
    they are what the 2B releases were published with.
    """

    negative: str = ""
    frames: int = 121
    width: int = 1216
    height: int = 704
    fps: float = 30.0
    steps: int = 40
    cfg: float | tuple[float, ...] = 3.0
    cfg_star: bool = False
    stg: float | tuple[float, ...] = 0.0
    stg_mode: SkipMode = "attention_values"
    skip_blocks: tuple[int, ...] | tuple[tuple[int, ...], ...] = ()
    rescale: float | tuple[float, ...] = 0.0
    guidance_times: tuple[float, ...] | None = None
    times: tuple[float, ...] | None = None
    skip_initial: int = 0
    skip_final: int = 0
    stochastic: bool = False
    image_noise: float = 0.0
    image_crf: int = 0
    cache_threshold: float = 0.0
    tone_map: float = 0.0
    last_step: LastStep = "renoise"
    decode_timestep: float = 0.05
    decode_noise_scale: float = 0.025

    @property
    def shape(self) -> VideoShape:
        """The size of the video that is handed over, on the grid or not."""
        return VideoShape(frames=self.frames, height=self.height, width=self.width, fps=self.fps)


def as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's arrays as tuples, nested ones too."""

    def convert(value: Any) -> Any:
        return tuple(map(convert, value)) if isinstance(value, list) else value

    return {name: convert(value) for name, value in values.items()}


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
    "stg": (lambda v: 0 <= v < math.inf, "at least 0 (0 is off)"),
    "rescale": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "times": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "guidance_times": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "skip_initial": (lambda v: v >= 0, "at least 0"),
    "skip_final": (lambda v: v >= 0, "at least 0"),
    "image_crf": (lambda v: 0 <= v <= 51, "from 0 (off) to 51"),
    "image_noise": (lambda v: 0 <= v < math.inf, "at least 0"),
    "tone_map": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "tile": (lambda v: v == 0 or (v >= 128 and v % 32 == 0), "a multiple of 32 from 128 on, or 0"),
    "cache_threshold": (lambda v: 0 <= v < math.inf, "at least 0 (0 is off)"),
    "seed": (lambda v: 0 <= v < 2**63, "from 0 to 2^63 - 1"),
    "decode_timestep": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "decode_noise_scale": (lambda v: 0 <= v <= 1, "from 0 to 1"),
}
_CHOICES = {
    "stg_mode": ("attention_values", "attention_skip", "transformer_block", "residual"),
    "noise_layout": ("openltx", "official"),
    "fit": ("exact", "pad"),
    "last_step": ("decoder", "renoise"),
}
