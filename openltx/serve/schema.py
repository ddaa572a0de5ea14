"""What a client may ask for: the OpenAI Videos API's fields, and every field of ``GenerationRequest`` as an extension.

The extensions are made from the dataclass itself, with its types, defaults and docstrings, so there is no second list.
Three things differ on a server. What is a file there is the identifier of an upload or of a finished video here, and
nothing else. A field that takes free text is left out unless it is known to be no path (``_TEXTS``), so that a field
that is new to the request cannot open a way to the disk. And sizes off the grid are padded and cropped back.
"""

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, create_model
from pydantic import Field as Described

from openltx.errors import RequestError
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples
from openltx.serve.settings import Limits

UPLOAD_FIELDS = ("image", "video", "mask", "reference")
"""The fields of ``GenerationRequest`` that name a file."""
NAMES_FILES = (*UPLOAD_FIELDS, "keyframes")

FILE_ID = r"(?:file-|video_)[0-9a-f]{32}"
_TEXTS = ("prompt", "negative", "size")  # free text that is never a path
_NOT_OFFERED = ("prompt_embeds", "original_prompt")  # a file of its own kind, and what only a finished video says
_MOST_FPS = 1000
_LEAST_FPS = 0.1
_KEYFRAME = rf"{FILE_ID}(?:\[(?:-?\d{{1,6}})?:(?:-?\d{{1,6}})?\])?@-?\d{{1,6}}(?::\d*\.?\d{{1,6}})?"
STAND_IN = "file-" + 32 * "0"
"""The identifier of a file that is only known to come."""
OVERLAP = 25
"""Frames at the end of a video from which it is continued, unless the client says otherwise: as few as show motion."""

FileId = Annotated[str, StringConstraints(pattern=rf"^{FILE_ID}$", max_length=40)]
KeyframeText = Annotated[str, StringConstraints(pattern=rf"^{_KEYFRAME}$", max_length=64)]
_MaybeFile: TypeAlias = FileId | None
_MaybeSize: TypeAlias = Annotated[str, StringConstraints(max_length=32)] | None


class InputReference(BaseModel):
    """A picture to start from: an upload's identifier, or the picture itself as a data URL."""

    model_config = ConfigDict(extra="forbid")

    file_id: FileId | None = None
    image_url: str | None = Described(None, description="data:image/png;base64,...; other addresses are not fetched.")


class VideoReference(BaseModel):
    """A finished video or an uploaded clip."""

    model_config = ConfigDict(extra="forbid")

    id: FileId


class Condition(BaseModel):
    """A picture or clip that the video shows at a frame."""

    model_config = ConfigDict(extra="forbid")

    file_id: FileId | None = Described(None, description="An upload, or a finished video.")
    image_url: str | None = Described(None, description="A picture as data:image/png;base64,...")
    frame: int = Described(
        0, ge=-999_999, le=999_999, description="Where it is shown; -1 is the last frame. A clip: a multiple of 8."
    )
    strength: float = Described(1.0, gt=0, le=1, description="How firmly the video is held to it.")
    first: int | None = Described(
        None, ge=-999_999, le=999_999, description="A clip's first frame; -25: 25 from its end."
    )
    end: int | None = Described(None, ge=-999_999, le=999_999, description="The frame behind a clip's last one.")

    def keyframe(self, file_id: str) -> str:
        """The same in one word, as ``GenerationRequest.keyframes`` has it."""
        first, end = ("" if edge is None else str(edge) for edge in (self.first, self.end))
        part = f"[{first}:{end}]" if first or end else ""
        return f"{file_id}{part}@{self.frame}:{self.strength:.6f}".rstrip("0").rstrip(".")


def _positive_seconds(text: str) -> str:
    if not 0 < float(text) < 100_000:
        raise ValueError("seconds must be above 0")
    return text


class _OpenAI(BaseModel):
    """The fields that the OpenAI API has."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: str | None = Described(None, max_length=200, description="The model's name as GET /v1/models gives it.")
    seconds: Annotated[
        Annotated[str, StringConstraints(pattern=r"^\d{1,5}(\.\d{1,6})?$"), AfterValidator(_positive_seconds)] | None,
        Described(description="Length of the video, in place of frames; made at 8k+1 frames and trimmed."),
    ] = None
    input_reference: InputReference | None = Described(
        None, description="A picture that the video starts from, in place of image. In a form: the file itself."
    )
    conditioning: tuple[Condition, ...] = Described(
        (), max_length=64, description="Pictures and clips at any frame of the video; the same as keyframes, in fields."
    )
    priority: int = Described(
        0, ge=-100, le=100, description="Which of your own waiting jobs comes first: the highest."
    )


def generation_fields() -> list[Field]:
    """The fields of ``GenerationRequest`` that a client may set."""
    hints = get_type_hints(GenerationRequest)

    def is_safe(field: Field) -> bool:
        if field.name in (*NAMES_FILES, *_TEXTS):
            return True
        return not {str, Path} & set(_leaves(hints[field.name]))

    return [field for field in fields(GenerationRequest) if is_safe(field)]


def _video_body() -> type[BaseModel]:
    hints, described = get_type_hints(GenerationRequest), _docstrings(GenerationRequest)
    extensions: dict[str, Any] = {}
    for field in generation_fields():
        kind: Any = hints[field.name]
        default = ... if field.default is MISSING else field.default
        if field.name in UPLOAD_FIELDS:
            kind = _MaybeFile
        elif field.name == "keyframes":
            kind = tuple[KeyframeText, ...]
        elif field.name == "size":
            kind = _MaybeSize
        elif field.name == "fit":
            default = "pad"
        extensions[field.name] = (kind, Described(default, description=described.get(field.name)))
    return create_model("VideoRequest", __base__=_OpenAI, **extensions)


def _leaves(kind: Any) -> list[Any]:
    """The plain types that a type is made of; a Literal is one, whatever its values."""
    arguments = get_args(kind)
    if not arguments or getattr(kind, "__origin__", None) is Literal:
        return [kind]
    return [leaf for argument in arguments for leaf in _leaves(argument)]


def _docstrings(owner: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for before, after in itertools.pairwise(definition.body):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[before.target.id] = text
    return found


VideoRequest = _video_body()
"""The body of POST /v1/videos."""

_a_video: Any = VideoReference
_SOURCE: dict[str, Any] = {
    "video": (_a_video | FileId | None, Described(None, description="The video; in a form also the file itself."))
}

ExtensionRequest = create_model(
    "ExtensionRequest",
    __base__=VideoRequest,
    **_SOURCE,
    overlap=(int, Described(OVERLAP, ge=1, le=10_000, description="Frames of its end from which it goes on, 8k+1.")),
)
"""The body of POST /v1/videos/extensions; ``seconds`` are those of the new part."""

EditRequest = create_model("EditRequest", __base__=VideoRequest, **_SOURCE)
"""The body of POST /v1/videos/edits."""


def wishes(body: BaseModel) -> dict[str, Any]:
    """The fields of ``GenerationRequest`` in a body, as far as the client set them; JSON's types."""
    names = {field.name for field in generation_fields()}
    return {name: value for name, value in body.model_dump(mode="json", exclude_unset=True).items() if name in names}


def request_of(wished: Mapping[str, Any], seconds: str | None, defaults: Sampling) -> tuple[GenerationRequest, str]:
    """The request to make and the ``seconds`` to tell the client; raises ``RequestError`` for what cannot be made."""
    asked = {"fit": "pad", **wished}
    if seconds is not None:
        if "frames" in asked:
            raise RequestError("Both seconds and frames are given: leave one of them out.")
        asked["frames"] = max(round(float(seconds) * float(asked.get("fps") or defaults.fps)), 1)
    request = GenerationRequest(**as_tuples(asked))
    settings = request.settings(defaults)
    return request, seconds or f"{settings.frames / settings.fps:.3f}".rstrip("0").rstrip(".")


def require_within(request: GenerationRequest, defaults: Sampling, limits: Limits) -> None:
    """Raise ``RequestError`` for a video that is larger than this server makes."""
    settings = request.settings(defaults)
    padded = settings.shape.padded()
    steps = settings.steps if settings.times is None else len(settings.times)
    if not _LEAST_FPS <= settings.fps <= _MOST_FPS:
        raise RequestError(f"fps={settings.fps:g} is not possible: choose {_LEAST_FPS} to {_MOST_FPS}.")
    longest = max(len(value) for value in (*vars(request).values(), ()) if isinstance(value, tuple))
    for name, value, most in (
        ("entries in one list", longest, limits.steps),
        ("frames", padded.frames, limits.video_frames),
        ("pixels in all", padded.frames * padded.width * padded.height, limits.video_pixels),
        ("steps", steps, limits.steps),
        ("characters in the prompt", max(len(request.prompt), len(request.negative or "")), limits.prompt_characters),
    ):
        if value > most:
            raise RequestError(f"{value} {name} are too many: this server takes at most {most}.")


def inputs_of(request: GenerationRequest) -> set[str]:
    """The identifiers of all files that a request looks at."""
    named = {str(getattr(request, name)) for name in UPLOAD_FIELDS if getattr(request, name)}
    return named | {split_keyframe(keyframe)[0] for keyframe in request.keyframes}


def split_keyframe(keyframe: str) -> tuple[str, str]:
    """The identifier of a keyframe's file, and the rest of the word."""
    match = re.match(FILE_ID, keyframe)
    assert match is not None, "the schema lets no other file pass"
    return match[0], keyframe[match.end() :]
