"""From what a client asks for to an accepted job: checked, its files linked to it, entered into the queue once."""

import hashlib
import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openltx.errors import RequestError
from openltx.pipelines.generate import curve_of
from openltx.pipelines.request import GenerationRequest
from openltx.serve.context import Context
from openltx.serve.log import happened
from openltx.serve.problems import ApiError
from openltx.serve.receiving import Received, keep, of_data_url
from openltx.serve.schema import VideoRequest, inputs_of, request_of, require_within, wishes
from openltx.serve.store.jobs import Job, NewJob, new_id
from openltx.serve.store.keys import Key
from openltx.serve.store.workers import ModelCard


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is ordered: the ``wished`` fields of ``GenerationRequest``, as JSON, and what does not belong to them."""

    wished: dict[str, Any]
    seconds: str | None
    priority: int
    source: Job | None

    def request(self, card: ModelCard, context: Context) -> tuple[GenerationRequest, str]:
        """The request to make and its length in seconds; raises ``RequestError`` for what this server does not make."""
        try:
            request, seconds = request_of(self.wished, self.seconds, card.defaults)
            require_within(request, card.defaults, context.settings.limits)
            curve_of(request.resolve(card.defaults).settings(card.defaults))
        except (ValueError, OverflowError) as error:  # numbers of thousands of digits
            raise RequestError("A number in the request is out of all bounds.") from error
        return request, seconds


def order(
    context: Context,
    key: Key,
    values: Mapping[str, Any],
    picture: Received | None = None,
    *,
    token: str | None = None,
    source: Job | None = None,
) -> Job:
    """Accept a job, or find the one that the same Idempotency-Key (``token``) made before. ``source`` is remixed.

    Raises ``ApiError``, ``OpenLTXError`` and pydantic's ``ValidationError`` for what cannot be accepted.
    """
    if token is not None and not (0 < len(token) <= 255 and token.isprintable()):
        raise ApiError(400, "An Idempotency-Key has 1 to 255 printable characters.", code="invalid_idempotency_key")
    body: Any = VideoRequest.model_validate(dict(values))
    picture = picture or _picture_of(body)
    digest = _digest(values, picture, source)
    if token is not None and (known := context.jobs.repeated(key.id, token, digest)) is not None:
        return known
    card = served_model(context, body.model)
    wanted = Order(wished=_wished(body, source), seconds=body.seconds, priority=body.priority, source=source)
    if picture is None:
        return _enter(context, key, card, wanted, token, digest)
    wanted.request(card, context)  # what cannot be made is refused before a picture is decoded for it
    upload = keep(context, key.id, picture)
    wanted.wished["image"] = upload.id
    try:
        return _enter(context, key, card, wanted, token, digest)
    except BaseException:
        context.uploads.delete(key.id, upload.id)
        context.files.discard_upload(upload.id)
        raise


def served_model(context: Context, asked: str | None) -> ModelCard:
    """What is known of the model; raises ``ApiError`` if it is another one, or not loaded for the first time yet."""
    card = context.workers.model(context.settings.model)
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


def _wished(body: Any, source: Job | None) -> dict[str, Any]:
    """The fields of ``GenerationRequest`` that are asked for: the client's own over those of the remixed job."""
    wished = wishes(body)
    reference = body.input_reference and body.input_reference.file_id
    if body.input_reference is not None:
        if "image" in wished:
            raise ApiError(400, "Both image and input_reference are given: leave one out.", param="image")
        if reference is not None:
            wished["image"] = reference
    if source is None:
        return wished
    kept = {name: value for name, value in source.request.items() if name != "seed"}  # a remix is another video
    if body.seconds is not None:
        kept.pop("frames", None)
    return {**kept, **wished}


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


def _picture_of(body: Any) -> Received | None:
    """The picture that an input_reference brings along as a data URL."""
    reference = body.input_reference
    if reference is None or reference.image_url is None:
        return None
    if reference.file_id is not None:
        raise ApiError(400, "Give file_id or image_url, not both.", param="input_reference")
    data = of_data_url(reference.image_url, "input_reference")
    return Received(file=io.BytesIO(data), filename="input_reference", param="input_reference")


def _digest(values: Mapping[str, Any], picture: Received | None, source: Job | None) -> str:
    """A hash of everything that was asked for."""
    parts = [dict(values), picture and picture.digest(), source and source.id]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
