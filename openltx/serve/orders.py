"""From what a client asks for to an accepted job: checked, its files linked to it, entered into the queue once.

new         POST /v1/videos, and a remix of a job (``source``)
extension   POST /v1/videos/extensions: the end of a video is given as a keyframe at 0, and the rest is made
edit        POST /v1/videos/edits: a video is given in place of noise, and the first steps are left out
"""

import hashlib
import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from openltx.errors import RequestError
from openltx.geometry import VideoShape
from openltx.media.io import is_picture, probe
from openltx.pipelines.generate import curve_of
from openltx.pipelines.request import GenerationRequest
from openltx.serve.context import Context
from openltx.serve.log import happened
from openltx.serve.problems import ApiError
from openltx.serve.receiving import Received, keep, of_data_url
from openltx.serve.schema import (
    STAND_IN,
    EditRequest,
    ExtensionRequest,
    VideoRequest,
    inputs_of,
    request_of,
    require_within,
    wishes,
)
from openltx.serve.store.jobs import Extends, Job, NewJob, new_id
from openltx.serve.store.keys import Key
from openltx.serve.store.workers import ModelCard

Kind = Literal["new", "extension", "edit"]
BODIES: dict[Kind, type[BaseModel]] = {"new": VideoRequest, "extension": ExtensionRequest, "edit": EditRequest}
EDIT_SKIPS = 0.4
"""The part of the steps that an edit leaves out, unless the client says: the composition stays."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is ordered: the ``wished`` fields of ``GenerationRequest``, as JSON, and what does not belong to them."""

    wished: dict[str, Any]
    seconds: str | None
    priority: int
    source: Job | None
    extends: Extends | None = None

    def request(self, card: ModelCard, context: Context) -> tuple[GenerationRequest, str]:
        """The request to make and its length in seconds; raises ``RequestError`` for what this server does not make."""
        limits = context.settings.limits
        try:
            request, seconds = request_of(self.wished, self.seconds, card.defaults)
            require_within(request, card.defaults, limits)
            curve_of(request.resolve(card.defaults).settings(card.defaults))
        except (ValueError, OverflowError) as error:  # numbers of thousands of digits
            raise RequestError("A number in the request is out of all bounds.") from error
        if self.extends is not None:
            settings = request.settings(card.defaults)
            frames = self.extends.frames + settings.frames - self.extends.overlap
            if frames > limits.extended_frames:
                raise RequestError(
                    f"The whole video would have {frames} frames: this server takes at most {limits.extended_frames}."
                )
            seconds = _shown(frames / settings.fps)
        return request, seconds


def order(
    context: Context,
    key: Key,
    kind: Kind,
    values: Mapping[str, Any],
    received: Mapping[str, Received],
    *,
    token: str | None = None,
    source: Job | None = None,
) -> Job:
    """Accept a job, or find the one that the same Idempotency-Key (``token``) made before.

    ``received`` are a form's files by the name of their field; ``source`` is remixed. Raises ``ApiError``,
    ``OpenLTXError`` and pydantic's ``ValidationError`` for what cannot be accepted.
    """
    if token is not None and not (0 < len(token) <= 255 and token.isprintable()):
        raise ApiError(400, "An Idempotency-Key has 1 to 255 printable characters.", code="invalid_idempotency_key")
    body: Any = BODIES[kind].model_validate(dict(values))
    sent = {**received, **_data_urls(body)}
    digest = _digest(kind, values, sent, source)
    if token is not None and (known := context.jobs.repeated(key.id, token, digest)) is not None:
        return known
    card = served_model(context, body.model)
    if "video" not in sent:  # what cannot be made is refused before a picture is decoded for it
        _order(context, key, card, kind, body, dict.fromkeys(sent, STAND_IN), source).request(card, context)
    uploads = []
    try:
        for place, each in sent.items():
            uploads.append((place, keep(context, key.id, each).id))
        wanted = _order(context, key, card, kind, body, dict(uploads), source)
        return _enter(context, key, card, wanted, token, digest)
    except BaseException:
        for _, upload in uploads:
            context.uploads.delete(key.id, upload)
            context.files.discard_upload(upload)
        raise


def preview_order(context: Context, key: Key, values: Mapping[str, Any]) -> tuple[ModelCard, GenerationRequest, str]:
    """What POST /v1/videos would make of this body: the model, the request and the seconds. Nothing is kept."""
    body: Any = VideoRequest.model_validate({"prompt": "a video", **values})
    card = served_model(context, body.model)
    wanted = _order(context, key, card, "new", body, dict.fromkeys(_data_urls(body), STAND_IN), None)
    return card, *wanted.request(card, context)


def served_model(context: Context, asked: str | None) -> ModelCard:
    """What is known of the model; raises ``ApiError`` if it is another one, or not loaded for the first time yet."""
    card = context.workers.model(context.settings.source)
    if card is None:
        message = "The model is being loaded. Try again in a moment."
        raise ApiError(503, message, code="model_loading", headers={"Retry-After": "2"})
    if asked is not None and asked != card.name:
        message = f'There is no model "{asked}" here. This server has "{card.name}".'
        raise ApiError(404, message, code="model_not_found", param="model")
    return card


def _enter(context: Context, key: Key, card: ModelCard, wanted: Order, token: str | None, digest: str) -> Job:
    request, seconds = wanted.request(card, context)
    settings = request.settings(card.defaults)
    inputs = {name: _place(context, key, name, wanted.source) for name in sorted(inputs_of(request))}
    job_id = new_id("video_")
    try:
        context.files.open_job(job_id, inputs)
        job, is_new = context.jobs.add(
            NewJob(
                owner=key.id,
                model=card.name,
                prompt=request.prompt,
                size=f"{settings.width}x{settings.height}",
                seconds=seconds,
                request=_stored(request, wanted.wished),
                key_priority=key.priority,
                priority=wanted.priority,
                remixed_from=wanted.source.id if wanted.source else None,
                extends=asdict(wanted.extends) if wanted.extends else None,
                bytes=sum(path.stat().st_size for path in inputs.values()),
                token=token,
                digest=digest,
            ),
            job_id,
        )
    except BaseException:
        context.files.discard_job(job_id)
        raise
    if not is_new:
        context.files.discard_job(job_id)
        return job
    happened("job.accepted", job=job.id, key=key.id, frames=settings.frames, size=job.size)
    return job


def _order(
    context: Context, key: Key, card: ModelCard, kind: Kind, body: Any, sent: Mapping[str, str], source: Job | None
) -> Order:
    """The order of a checked body; ``sent`` has the identifiers of the files that came with it, by their place."""
    wished = _wished(kind, body, sent, source)
    plain = Order(wished=wished, seconds=body.seconds, priority=body.priority, source=source)
    video = None if kind == "new" else _video_of(body, sent)
    match kind:
        case "new" if source is not None and source.continues is not None:
            return _extended(plain, card, source.continues, body.frames)
        case "new":
            return plain
        case "edit":
            assert video is not None
            return _edited(plain, card, video, _shape(context, key, video))
        case "extension":
            assert video is not None
            shape = _shape(context, key, video)
            if wished.get("fps", shape.fps) != shape.fps:
                raise RequestError(f"The video has {shape.fps:g} frames a second, and so does what continues it.")
            own = {"size": f"{shape.width}x{shape.height}", "fps": shape.fps}
            overlap = min((body.overlap - 1) // 8 * 8, (shape.frames - 1) // 8 * 8) + 1
            extends = Extends(file=video, frames=shape.frames, overlap=overlap)
            return _extended(replace(plain, wished={**own, **wished}), card, extends, body.frames)


def _wished(kind: Kind, body: Any, sent: Mapping[str, str], source: Job | None) -> dict[str, Any]:
    """The fields of ``GenerationRequest`` that are asked for: the client's own over those of the remixed job."""
    wished = wishes(body)
    if kind != "new":
        wished.pop("video", None)
    reference = sent.get("input_reference") or (body.input_reference and body.input_reference.file_id)
    if reference is not None:
        if "image" in wished:
            raise ApiError(400, "Both image and input_reference are given: leave one out.", param="image")
        wished["image"] = reference
    if body.conditioning:
        named = [sent.get(_condition(number)) or each.file_id for number, each in enumerate(body.conditioning)]
        words = [each.keyframe(_required(name)) for each, name in zip(body.conditioning, named, strict=True)]
        wished["keyframes"] = [*wished.get("keyframes", ()), *words]
    if source is None:
        return wished
    kept = {name: value for name, value in source.request.items() if name != "seed"}  # a remix is another video
    if body.seconds is not None:
        kept.pop("frames", None)
    return {**kept, **wished}


def _extended(plain: Order, card: ModelCard, extends: Extends, frames: int | None) -> Order:
    """The order of a video that goes on where another ends; ``seconds`` and ``frames`` are those of the new part."""
    wished = dict(plain.wished)
    if wished.get("image") or wished.get("video"):
        raise RequestError("An extension begins with the end of its video: leave image, input_reference and video out.")
    if plain.seconds is not None:
        if frames is not None:
            raise RequestError("Both seconds and frames are given: leave one of them out.")
        frames = max(round(float(plain.seconds) * float(wished.get("fps") or card.defaults.fps)), 1)
    if frames is not None or "frames" not in wished:
        wished["frames"] = extends.overlap + (frames or card.defaults.frames - 1)
    given = f"{extends.file}[-{extends.overlap}:]@0"
    others = [word for word in wished.get("keyframes", ()) if word != given]
    return replace(plain, wished={**wished, "keyframes": [given, *others]}, seconds=None, extends=extends)


def _edited(plain: Order, card: ModelCard, video: str, shape: VideoShape) -> Order:
    """The order of a video made anew from another one: of its size and length, and without the first steps."""
    own = {"size": f"{shape.width}x{shape.height}", "fps": shape.fps}
    if plain.seconds is None:
        own["frames"] = (shape.frames - 1) // 8 * 8 + 1
    wished = {**own, **plain.wished, "video": video}
    if not {"skip_initial", "times", "mask"} & set(wished):
        settings = card.defaults
        steps = wished.get("steps") or settings.steps
        if settings.times is None or "steps" in wished:
            wished["skip_initial"] = min(max(round(EDIT_SKIPS * steps), 1), max(steps - 1, 0))
        else:
            wished["times"] = settings.times[max(round(EDIT_SKIPS * len(settings.times)), 1) :]
    return replace(plain, wished=wished)


def _video_of(body: Any, sent: Mapping[str, str]) -> str:
    """The identifier of the video that is continued or edited."""
    named = body.video if isinstance(body.video, str | None) else body.video.id
    if named is not None and "video" in sent:
        raise ApiError(400, "Give the video as a file or by its id, not both.", param="video")
    return _required(sent.get("video") or named, "video")


def _shape(context: Context, key: Key, video: str) -> VideoShape:
    """Length, size and frame rate of a caller's video; raises ``ApiError`` if it is none."""
    place = _place(context, key, video, None)
    if is_picture(place):
        raise ApiError(400, "This is a picture, not a video: give it as input_reference.", param="video")
    return probe(place)


def _required(file_id: str | None, field: str = "conditioning") -> str:
    if file_id is None:
        raise ApiError(400, f"{field}: no file is named. Give the id of an upload or video.", param=field)
    return file_id


def _stored(request: GenerationRequest, wished: Mapping[str, Any]) -> dict[str, Any]:
    """What the worker gets: the wishes, and what stands already, so that a job that runs again is the same job."""
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    frames = {} if request.frames is None else {"frames": request.frames}
    return {**wished, "fit": request.fit, **frames, "seed": seed}


def _place(context: Context, key: Key, name: str, source: Job | None) -> Path:
    """Where the file of this identifier is, if it is the caller's."""
    if source is not None and name in inputs_of(GenerationRequest.from_json(json.dumps(source.request))):
        return context.files.input(source.id, name)
    if name.startswith("file-"):
        upload = context.uploads.get(key.id, name)
        place = upload and context.files.upload(name, upload.kind)
    else:
        job = context.jobs.get(key.id, name)
        is_there = job is not None and job.status == "completed"
        place = context.files.content(name, "video") if is_there else None
    if place is None or not place.is_file():
        raise ApiError(404, f"There is no upload and no finished video {name}.", code="file_not_found")
    return place


def _data_urls(body: Any) -> dict[str, Received]:
    """The pictures that a body brings along as data URLs, by their place in it."""
    given = {} if body.input_reference is None else {"input_reference": body.input_reference}
    given |= {_condition(number): each for number, each in enumerate(body.conditioning)}
    found = {}
    for place, each in given.items():
        if each.image_url is None:
            continue
        param = place.partition(".")[0]
        if each.file_id is not None:
            raise ApiError(400, "Give file_id or image_url, not both.", param=param)
        data = of_data_url(each.image_url, param)
        found[place] = Received(file=io.BytesIO(data), filename=param, param=param)
    return found


def _condition(number: int) -> str:
    return f"conditioning.{number}"


def _digest(kind: Kind, values: Mapping[str, Any], sent: Mapping[str, Received], source: Job | None) -> str:
    """A hash of everything that was asked for."""
    parts = [kind, dict(values), {place: each.digest() for place, each in sent.items()}, source and source.id]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _shown(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
