"""What clients see of jobs, uploads and models: the objects of the OpenAI API, with a few fields more."""

from dataclasses import asdict
from typing import Any, Literal

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from openltx.serve.settings import Limits
from openltx.serve.store.jobs import Job
from openltx.serve.store.uploads import Upload
from openltx.serve.store.workers import ModelCard


class JSONAnswer(Response):
    """An answer in JSON, as it stands: nothing is looked at again."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class VideoError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class VideoObject(BaseModel):
    """A video job, as the OpenAI API describes it; the fields from ``prompt`` on are this server's own."""

    id: str
    object: Literal["video"] = "video"
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
    progress: int
    """Percent."""
    created_at: int
    completed_at: int | None
    expires_at: int | None
    model: str
    size: str
    seconds: str
    error: VideoError | None
    remixed_from_video_id: str | None
    extended_from_video_id: str | None
    """The video or upload that this one continues."""
    prompt: str
    stage: Literal["queued", "prepare", "sample", "decode", "write", "done"]
    step: int
    steps: int
    attempt: int
    """How often it was begun."""
    stages: dict[str, float]
    """Seconds by stage, when completed."""
    request: dict[str, Any]
    """What was asked for, or, when completed, everything that made the video, nothing left open."""


class VideoList(BaseModel):
    """A page of jobs; the next one begins ``after`` its ``last_id``."""

    object: Literal["list"] = "list"
    data: list[VideoObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """What is left of something deleted."""

    id: str
    object: str
    deleted: Literal[True] = True


class FileObject(BaseModel):
    """An upload, as the OpenAI Files API describes it; the fields from ``kind`` on are this server's own."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    kind: Literal["picture", "clip"]
    frames: int
    width: int
    height: int


class ModelObject(BaseModel):
    """The served model; ``sampling`` is what it does where a request leaves something open."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "openltx"
    fingerprint: str
    sampling: dict[str, Any]
    defaults: dict[str, Any]
    """``sampling`` with every field filled in."""
    two_pass: bool
    limits: dict[str, int]
    """The largest request that is taken."""


class VideoSettings(BaseModel):
    """What a video that openltx made says of itself."""

    object: Literal["video.settings"] = "video.settings"
    model: str | None
    fingerprint: str | None
    openltx: str | None
    seconds_taken: str | None
    request: dict[str, Any]
    """Fields of POST /v1/videos."""
    missing: list[str]
    """Fields whose files are not on this server."""


class PlanStage(BaseModel):
    """One part of the work."""

    name: str
    flops: int
    memory_bytes: int
    seconds: float | None


class PlanObject(BaseModel):
    """What a request would take; seconds are null where no video has shown yet how fast the machine is."""

    object: Literal["plan"] = "plan"
    model: str
    size: str
    frames: int
    fps: float
    seconds: str
    steps: int
    takes_seconds: float | None
    memory_bytes: int
    available_bytes: int
    fits: bool
    waiting: int
    """Jobs that wait or run."""
    waiting_seconds: float | None
    """How long these take, if they are as long as the latest ones were."""
    stages: list[PlanStage]


def video_object(job: Job) -> dict[str, Any]:
    """A job as JSON."""
    error = None if job.error_code is None else {"code": job.error_code, "message": job.error_message or ""}
    return {
        "id": job.id,
        "object": "video",
        "status": job.status,
        "progress": job.progress,
        "created_at": int(job.created_at),
        "completed_at": _whole(job.finished_at) if job.stage == "done" else None,
        "expires_at": _whole(job.expires_at),
        "model": job.model,
        "size": job.size,
        "seconds": job.seconds,
        "error": error,
        "remixed_from_video_id": job.remixed_from,
        "extended_from_video_id": None if job.extends is None else job.extends["file"],
        "prompt": job.prompt,
        "stage": job.stage,
        "step": job.step,
        "steps": job.steps,
        "attempt": job.attempt,
        "stages": job.stages,
        "request": job.resolved or job.request,
    }


def file_object(upload: Upload) -> dict[str, Any]:
    """An upload as JSON."""
    return {
        "id": upload.id,
        "object": "file",
        "bytes": upload.bytes,
        "created_at": int(upload.created_at),
        "expires_at": int(upload.expires_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": "processed",
        "kind": upload.kind,
        "frames": upload.frames,
        "width": upload.width,
        "height": upload.height,
    }


def model_object(card: ModelCard, limits: Limits, *, two_pass: bool) -> dict[str, Any]:
    """A model as JSON."""
    return {
        "id": card.name,
        "object": "model",
        "created": int(card.loaded_at),
        "owned_by": "openltx",
        "fingerprint": card.fingerprint,
        "sampling": card.sampling,
        "defaults": asdict(card.defaults),
        "two_pass": two_pass,
        "limits": {
            "frames": limits.video_frames,
            "pixels": limits.video_pixels,
            "steps": limits.steps,
            "prompt_characters": limits.prompt_characters,
            "extended_frames": limits.extended_frames,
            "upload_bytes": limits.upload_bytes,
            "upload_frames": limits.upload_frames,
            "upload_side": limits.upload_side,
        },
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
