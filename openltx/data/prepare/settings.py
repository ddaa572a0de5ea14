"""What a training set shall be: one configuration, as JSON too.

Everything a person may want to change is here and nowhere else. ``cut`` decides what is decoded and measured; the rest
judges measures and can be changed later without decoding anything again.
"""

import difflib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from openltx.data.shots import DetectorName
from openltx.errors import DataError
from openltx.geometry import LTX_COMPRESSION


@dataclass(frozen=True, kw_only=True)
class CutSettings:
    """How videos become clips: shots are cut into pieces of at most ``frames`` and at least ``min_frames`` frames."""

    detector: DetectorName = "adaptive"
    frames: int = 121
    min_frames: int = 25
    fps: float | None = None
    """Frames are left out to come down to this rate; None keeps each video's own."""
    per_shot: int | None = None
    """No more than the first so many pieces of a shot are kept; None keeps all."""
    skip_start: float = 0.0
    """Seconds of every video that are left out at its beginning."""
    skip_end: float = 0.0
    """And at its end."""


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """Black bars are cut off; a picture with less than ``min_left`` of its area left is dropped."""

    min_left: float = 0.3


@dataclass(frozen=True, kw_only=True)
class MotionSettings:
    """Speeds are in diagonals of the picture a second, jitter in diagonals a frame."""

    min_speed: float = 0.006
    max_frozen: float = 0.4
    """The share of a clip that may pass without any change."""
    max_jitter: float = 0.006


@dataclass(frozen=True, kw_only=True)
class SharpnessSettings:
    """``max_blur``: from 0, sharp, to 1. Lightness is the mean of the picture's, from 0 to 255."""

    max_blur: float = 0.75
    min_lightness: float = 16.0
    max_lightness: float = 240.0


@dataclass(frozen=True, kw_only=True)
class OverlaySettings:
    """Lines of text that stay in place while the picture moves may cover this share of it."""

    max_share: float = 0.01


@dataclass(frozen=True, kw_only=True)
class DedupeSettings:
    """Clips whose fingerprints differ in at most this share of their bits are one clip."""

    max_distance: float = 0.1


@dataclass(frozen=True, kw_only=True)
class AestheticSettings:
    """``ranker``: a file of ``openltx data rate --train``; clips that score below ``min_score`` are dropped."""

    ranker: str | None = None
    min_score: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """Who captions: text files beside the videos, a vision-language model, or an endpoint that speaks OpenAI's API."""

    backend: Literal["files", "model", "endpoint"] = "files"
    model: str | None = None
    """A folder or a hub name for "model"; what the endpoint calls its model for "endpoint"."""
    url: str | None = None
    prompt: str = (
        "Describe this video in one paragraph of 30 to 100 words: what is seen, what moves and how, the camera, the "
        "light. Begin with the subject itself."
    )
    frames: int = 5
    """Pictures that the captioner is shown."""
    max_words: int = 200
    required: bool = False
    """Whether clips without a caption are dropped."""


@dataclass(frozen=True, kw_only=True)
class BucketSettings:
    """``sizes``: WIDTHxHEIGHTxFRAMES. A clip goes where most of its picture is seen and least of its length is lost."""

    sizes: tuple[str, ...] = ("768x512x121", "512x768x121", "768x512x49", "512x768x49", "768x512x25", "512x768x25")
    min_kept: float = 0.6
    """The share of the picture that must be seen."""
    max_enlarged: float = 1.0
    """How many times a picture may be enlarged."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Clip files are H.264 of quality ``crf``; ``shards`` of ``per_shard`` clips are written beside them."""

    crf: int = 10
    heldout: float = 0.1
    seed: int = 0
    shards: Literal["none", "webdataset", "parquet"] = "none"
    per_shard: int = 256


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """All of it."""

    cut: CutSettings = field(default_factory=CutSettings)
    crop: CropSettings = field(default_factory=CropSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    sharpness: SharpnessSettings = field(default_factory=SharpnessSettings)
    overlay: OverlaySettings = field(default_factory=OverlaySettings)
    dedupe: DedupeSettings = field(default_factory=DedupeSettings)
    aesthetic: AestheticSettings = field(default_factory=AestheticSettings)
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    bucket: BucketSettings = field(default_factory=BucketSettings)
    export: ExportSettings = field(default_factory=ExportSettings)

    def __post_init__(self) -> None:
        if self.cut.per_shot is not None and self.cut.per_shot < 1:
            raise DataError(
                f"A shot gives at least one clip; asked for {self.cut.per_shot}. Leave per_shot out for all."
            )
        if not 1 <= self.cut.min_frames <= self.cut.frames:
            raise DataError(
                f"Clips of {self.cut.min_frames} to {self.cut.frames} frames cannot be: the lower number must be at "
                "least 1 and at most the upper one."
            )
        if not 0 <= self.export.heldout < 1:
            raise DataError(f"The share of held-out shots must be from 0 to below 1; asked for {self.export.heldout}.")
        if (self.cut.fps is not None and self.cut.fps <= 0) or min(self.cut.skip_start, self.cut.skip_end) < 0:
            raise DataError("Frames a second must be above 0 and skipped seconds not below 0.")
        if self.export.per_shard < 1:
            raise DataError(f"A shard holds at least one clip; asked for {self.export.per_shard}.")
        if self.caption.backend != "files" and not self.caption.model:
            raise DataError('The captioner needs the name of a model: --caption-model, or "model" under "caption".')
        if self.caption.backend == "endpoint" and not self.caption.url:
            raise DataError('The captioner needs the address of its endpoint: --caption-url, or "url" under "caption".')
        for size in self.bucket.sizes:
            Bucket.parse(size)

    @classmethod
    def read(cls, path: Path) -> "PrepareSettings":
        """Settings from a JSON file that names only what differs; ``DataError`` names what is unknown."""
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as settings ({error}). It must be a JSON file.") from error
        return _build(cls, given, str(path))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True, order=True)
class Bucket:
    """A size and length that clips are trained at: multiples of 32 pixels, 8 k + 1 frames."""

    width: int
    height: int
    frames: int

    @classmethod
    def parse(cls, text: str) -> "Bucket":
        """ "768x512x121"; ``DataError`` says what is near if the model cannot take it."""
        try:
            width, height, frames = (int(part) for part in text.lower().split("x"))
        except ValueError:
            raise DataError(f'"{text}" is no bucket. Give WIDTHxHEIGHTxFRAMES, for example 768x512x121.') from None
        space, time = LTX_COMPRESSION.space, LTX_COMPRESSION.time
        if width < space or height < space or frames < 1 or width % space or height % space or frames % time != 1:
            near = (max(round(side / space), 1) * space for side in (width, height))
            raise DataError(
                f"A bucket of {text} does not fit the model: sides must be multiples of {space}, frames {time} k + 1. "
                f"Near it: {'x'.join(map(str, (*near, max(round((frames - 1) / time), 0) * time + 1)))}."
            )
        return cls(width, height, frames)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"


def _build(kind: Any, given: Any, where: str) -> Any:
    """A dataclass from JSON; parts that are dataclasses are built the same way."""
    names = [one.name for one in fields(kind)]
    if not isinstance(given, dict):
        raise DataError(f"{where} must be an object with some of {', '.join(names)}.")
    hints = get_type_hints(kind)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            guess = f' Did you mean "{near[0]}"?' if near else f" Possible: {', '.join(names)}."
            raise DataError(f'{where} has an unknown setting "{name}".{guess}')
    values = {name: _value(hints[name], value, f'{where}, "{name}"') for name, value in given.items()}
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    """One setting, checked against its type."""
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        return _build(hint, value, where)
    if isinstance(value, list):
        value = tuple(value)
    allowed = getattr(hint, "__args__", (hint,))
    if getattr(hint, "__origin__", None) is Literal:
        valid = value in allowed
    elif getattr(hint, "__origin__", None) is tuple:
        valid = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    else:
        if type(value) is int and float in allowed:
            value = float(value)
        valid = type(value) in allowed
    if not valid:
        kind = " or ".join(getattr(one, "__name__", repr(one)) for one in allowed if one is not Ellipsis)
        raise DataError(f"{where} cannot be {value!r}. Possible: {kind}.")
    return value
