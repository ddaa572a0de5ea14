"""/v1/videos: the OpenAI Videos API, and beside it cancel and events."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from openltx.serve.bodies import read_body
from openltx.serve.content import file_answer
from openltx.serve.context import Caller, Context, Here
from openltx.serve.events import stream
from openltx.serve.files import PREVIEW, VARIANTS
from openltx.serve.log import happened
from openltx.serve.orders import order
from openltx.serve.problems import ApiError
from openltx.serve.receiving import Received
from openltx.serve.schema import VideoRequest
from openltx.serve.store.jobs import Job
from openltx.serve.store.keys import Key
from openltx.serve.views import Deleted, VideoList, VideoObject, video_object

router = APIRouter(prefix="/v1/videos", tags=["videos"])

POLL_MILLISECONDS = 500
_PICTURE = "input_reference"

Token = Annotated[str | None, Header(alias="Idempotency-Key", description="Repeat a request with the same key safely.")]
Variant = Literal["video", "thumbnail", "spritesheet", "preview"]


def _body_schema() -> dict[str, Any]:
    """The request body for the OpenAPI page: the same fields as JSON and as a form with a file in it."""
    json_schema = VideoRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = json_schema.pop("$defs", {})
    form = {
        **json_schema,
        "properties": {**json_schema["properties"], _PICTURE: {"type": "string", "format": "binary"}},
    }
    for name in ("InputReference",):
        _inline(json_schema, name, definitions)
    content = {"application/json": {"schema": json_schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def _inline(schema: dict[str, Any], name: str, definitions: dict[str, Any]) -> None:
    """Put a definition where it is used, so that the schema stands by itself."""
    for option in schema["properties"][_PICTURE].get("anyOf", []):
        if option.get("$ref", "").endswith(name):
            option.clear()
            option.update(definitions[name])


_BODY = _body_schema()


@router.post("", response_model=VideoObject, openapi_extra=_BODY)
async def create(request: Request, context: Here, key: Caller, token: Token = None) -> JSONResponse:
    """Order a video. The answer comes at once, with the job in the queue."""
    values, files = await read_body(request)
    picture = _picture(files)
    job = await run_in_threadpool(order, context, key, values, picture, token=token)
    return JSONResponse(video_object(job))


@router.get("", response_model=VideoList)
def index(
    context: Here,
    key: Caller,
    after: Annotated[str | None, Query(max_length=64, description="Begin behind this job.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    """Your jobs, the latest first."""
    page = context.jobs.page(key.id, after=after, limit=limit, ascending=order == "asc")
    if page is None:
        raise ApiError(400, "after is no job of yours.", code="invalid_cursor", param="after")
    jobs, has_more = page
    return JSONResponse(
        {
            "object": "list",
            "data": [video_object(job) for job in jobs],
            "first_id": jobs[0].id if jobs else None,
            "last_id": jobs[-1].id if jobs else None,
            "has_more": has_more,
        }
    )


@router.get("/{video_id}", response_model=VideoObject)
def retrieve(video_id: str, context: Here, key: Caller) -> JSONResponse:
    """A job as it is now."""
    job = _job(context, key, video_id)
    ahead = {"queue_position": context.jobs.ahead_of(job)} if job.status == "queued" else {}
    return JSONResponse({**video_object(job), **ahead}, headers={"openai-poll-after-ms": str(POLL_MILLISECONDS)})


@router.delete("/{video_id}", response_model=Deleted)
def delete(video_id: str, context: Here, key: Caller) -> JSONResponse:
    """Delete a job and its files. One that runs stops at its next step."""
    if not context.jobs.delete(key.id, video_id):
        raise _no_such_video()
    context.files.discard_job(video_id)
    happened("job.deleted", job=video_id, key=key.id)
    return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})


@router.post("/{video_id}/cancel", response_model=VideoObject)
def cancel(video_id: str, context: Here, key: Caller) -> JSONResponse:
    """Stop a job that waits or runs, within one step. It stays in the list."""
    job = context.jobs.cancel(key.id, video_id)
    if job is None:
        raise _no_such_video()
    if job.status != "cancelled":
        raise ApiError(409, f"The job has ended already: it is {job.status}.", code="already_ended")
    happened("job.cancelled", job=video_id, key=key.id)
    return JSONResponse(video_object(job))


@router.post("/{video_id}/remix", response_model=VideoObject, openapi_extra=_BODY)
async def remix(video_id: str, request: Request, context: Here, key: Caller, token: Token = None) -> JSONResponse:
    """Order a video with the settings and files of another one. Given fields replace its own; the seed is new."""
    values, files = await read_body(request)
    source = await run_in_threadpool(_job, context, key, video_id)
    if source.status == "expired":
        raise ApiError(404, "The video has expired, and its files are gone.", code="video_expired")
    values = {"prompt": source.prompt, **values}
    job = await run_in_threadpool(order, context, key, values, _picture(files), token=token, source=source)
    return JSONResponse(video_object(job))


@router.api_route("/{video_id}/content", methods=["GET", "HEAD"], response_class=Response)
def content(
    video_id: str, request: Request, context: Here, key: Caller, variant: Annotated[Variant, Query()] = "video"
) -> Response:
    """The video, its thumbnail or its spritesheet; or, while the job runs, a preview."""
    job = _job(context, key, video_id)
    try:
        if variant == "preview":
            path = context.files.job(job.id) / PREVIEW
            return file_answer(request, path, "image/jpeg", f"{job.id}-{PREVIEW}", changes=True)
        _require_ready(job)
        name, media_type = VARIANTS[variant]
        return file_answer(request, context.files.content(job.id, variant), media_type, f"{job.id}-{name}")
    except FileNotFoundError:
        raise ApiError(404, f"There is no {variant} of this job.", code="no_content", param="variant") from None


@router.get("/{video_id}/events", response_class=StreamingResponse)
def events(
    video_id: str,
    context: Here,
    key: Caller,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """The job's life as server-sent events: status, progress, preview, log; in the end done or deleted."""
    _job(context, key, video_id)
    if not context.streams.acquire(blocking=False):
        raise ApiError(503, "Too many event streams are open.", code="busy", headers={"Retry-After": "5"})
    context.streams.release()  # the stream itself takes it again, and gives it back whatever happens
    after = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else 0
    return StreamingResponse(
        stream(context, key.id, video_id, min(after, 2**62)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _job(context: Context, key: Key, video_id: str) -> Job:
    job = context.jobs.get(key.id, video_id)
    if job is None:
        raise _no_such_video()
    return job


def _no_such_video() -> ApiError:
    return ApiError(404, "There is no such video.", code="video_not_found", param="video_id")


def _require_ready(job: Job) -> None:
    """Raise ``ApiError`` unless the job has content."""
    match job.status:
        case "queued" | "in_progress":
            raise ApiError(409, f"The video is not ready yet: {job.status}, {job.progress} %.", code="video_not_ready")
        case "expired":
            raise ApiError(404, "The video has expired, and its files are gone.", code="video_expired")
        case "failed" | "cancelled":
            raise ApiError(404, f"There is no video: the job's state is {job.status}.", code="no_video")


def _picture(files: dict[str, UploadFile]) -> Received | None:
    """The file of a form, which must be its input_reference."""
    for name, upload in files.items():
        if name != _PICTURE:
            message = f'A file goes into the field "{_PICTURE}". More files: POST /v1/files, and name them by their id.'
            raise ApiError(400, message, code="unknown_parameter", param=name[:100])
        return Received(file=upload.file, filename=upload.filename or "", param=_PICTURE)
    return None
