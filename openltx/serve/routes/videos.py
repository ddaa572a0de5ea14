"""/v1/videos: the OpenAI Videos API, and beside it cancel and events."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from openltx.serve.bodies import read_body
from openltx.serve.content import file_answer
from openltx.serve.context import Caller, Context, Here
from openltx.serve.events import stream
from openltx.serve.files import PREVIEW, VARIANTS
from openltx.serve.log import happened
from openltx.serve.orders import BODIES, Kind, order
from openltx.serve.problems import ApiError
from openltx.serve.receiving import Received, settings_in
from openltx.serve.routes.files import FILE_BODY
from openltx.serve.store.jobs import Job
from openltx.serve.store.keys import Key
from openltx.serve.views import Deleted, JSONAnswer, VideoList, VideoObject, VideoSettings, video_object

router = APIRouter(prefix="/v1/videos", tags=["videos"])

POLL_MILLISECONDS = 500
_PICTURE = "input_reference"

Token = Annotated[str | None, Header(alias="Idempotency-Key", description="Repeat a request with the same key safely.")]
Variant = Literal["video", "thumbnail", "spritesheet", "preview"]


def body_schema(kind: Kind, file: str | None) -> dict[str, Any]:
    """The request body for the OpenAPI page: the same fields as JSON and, with a ``file`` in one of them, as a form."""
    json_schema = BODIES[kind].model_json_schema(ref_template="#/components/schemas/{model}")
    json_schema = _inlined(json_schema, json_schema.pop("$defs", {}))
    content = {"application/json": {"schema": json_schema}}
    if file is not None:
        binary = {file: {"type": "string", "format": "binary"}}
        form = {**json_schema, "properties": {**json_schema["properties"], **binary}}
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema that stands by itself: every definition where it is used."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items()}


_BODY = body_schema("new", _PICTURE)


@router.post("", response_model=VideoObject, openapi_extra=_BODY)
async def create(request: Request, context: Here, key: Caller, token: Token = None) -> JSONAnswer:
    """Order a video. The answer comes at once, with the job in the queue."""
    return await _ordered("new", _PICTURE, request, context, key, token)


@router.post("/extensions", response_model=VideoObject, openapi_extra=body_schema("extension", "video"))
async def extend(request: Request, context: Here, key: Caller, token: Token = None) -> JSONAnswer:
    """Continue a finished video or an uploaded clip. The result is the whole: the old frames and ``seconds`` more."""
    return await _ordered("extension", "video", request, context, key, token)


@router.post("/edits", response_model=VideoObject, openapi_extra=body_schema("edit", "video"))
async def edit(request: Request, context: Here, key: Caller, token: Token = None) -> JSONAnswer:
    """Make a video anew by a prompt: it takes the place of noise, with skip_initial of the first steps left out."""
    return await _ordered("edit", "video", request, context, key, token)


@router.post("/settings", response_model=VideoSettings, openapi_extra=FILE_BODY)
async def settings(request: Request, context: Here, key: Caller) -> JSONAnswer:
    """The settings in a video that openltx made, ready to be sent again. Nothing is kept."""
    values, files = await read_body(request)
    if values or set(files) != {"file"}:
        raise ApiError(400, 'Send a form with the video in the field "file".', code="missing_file", param="file")
    return JSONAnswer(await run_in_threadpool(settings_in, context, key.id, received(files, "file")["file"]))


@router.get("", response_model=VideoList)
async def index(
    context: Here,
    key: Caller,
    after: Annotated[str | None, Query(max_length=64, description="Begin behind this job.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> JSONAnswer:
    """Your jobs, the latest first."""
    page = await context.look(context.jobs.page, key.id, after=after, limit=limit, ascending=order == "asc")
    if page is None:
        raise ApiError(400, "after is no job of yours.", code="invalid_cursor", param="after")
    jobs, has_more = page
    return JSONAnswer(
        {
            "object": "list",
            "data": [video_object(job) for job in jobs],
            "first_id": jobs[0].id if jobs else None,
            "last_id": jobs[-1].id if jobs else None,
            "has_more": has_more,
        }
    )


@router.get("/{video_id}", response_model=VideoObject)
async def retrieve(video_id: str, context: Here, key: Caller) -> JSONAnswer:
    """A job as it is now."""
    job = await context.look(_job, context, key, video_id)
    ahead = {"queue_position": await context.look(context.jobs.ahead_of, job)} if job.status == "queued" else {}
    return JSONAnswer({**video_object(job), **ahead}, headers={"openai-poll-after-ms": str(POLL_MILLISECONDS)})


@router.delete("/{video_id}", response_model=Deleted)
def delete(video_id: str, context: Here, key: Caller) -> JSONAnswer:
    """Delete a job and its files. One that runs stops at its next step."""
    if not context.jobs.delete(key.id, video_id):
        raise _no_such_video()
    context.files.discard_job(video_id)
    happened("job.deleted", job=video_id, key=key.id)
    return JSONAnswer({"id": video_id, "object": "video.deleted", "deleted": True})


@router.post("/{video_id}/cancel", response_model=VideoObject)
def cancel(video_id: str, context: Here, key: Caller) -> JSONAnswer:
    """Stop a job that waits or runs, within one step. It stays in the list."""
    job = context.jobs.cancel(key.id, video_id)
    if job is None:
        raise _no_such_video()
    if job.status != "cancelled":
        raise ApiError(409, f"The job has ended already: it is {job.status}.", code="already_ended")
    happened("job.cancelled", job=video_id, key=key.id)
    return JSONAnswer(video_object(job))


@router.post("/{video_id}/remix", response_model=VideoObject, openapi_extra=_BODY)
async def remix(video_id: str, request: Request, context: Here, key: Caller, token: Token = None) -> JSONAnswer:
    """Order a video with the settings and files of another one. Given fields replace its own; the seed is new."""
    values, files = await read_body(request)
    source = await context.look(_job, context, key, video_id)
    if source.status == "expired":
        raise ApiError(404, "The video has expired, and its files are gone.", code="video_expired")
    values = {"prompt": source.prompt, **values}
    given = received(files, _PICTURE)
    job = await run_in_threadpool(order, context, key, "new", values, given, token=token, source=source)
    return JSONAnswer(video_object(job))


@router.api_route("/{video_id}/content", methods=["GET", "HEAD"], response_class=Response)
async def content(
    video_id: str, request: Request, context: Here, key: Caller, variant: Annotated[Variant, Query()] = "video"
) -> Response:
    """The video, its thumbnail or its spritesheet; or, while the job runs, a preview."""
    job = await context.look(_job, context, key, video_id)
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
async def events(
    video_id: str,
    context: Here,
    key: Caller,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """The job's life as server-sent events: status, progress, preview, log; in the end done or deleted."""
    await context.look(_job, context, key, video_id)
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


async def _ordered(
    kind: Kind, file: str, request: Request, context: Context, key: Key, token: str | None
) -> JSONAnswer:
    values, files = await read_body(request)
    job = await run_in_threadpool(order, context, key, kind, values, received(files, file), token=token)
    return JSONAnswer(video_object(job))


def received(files: dict[str, UploadFile], field: str) -> dict[str, Received]:
    """The file of a form, which must be in this field."""
    for name in files:
        if name != field:
            message = f'A file goes into the field "{field}". More files: POST /v1/files, and name them by their id.'
            raise ApiError(400, message, code="unknown_parameter", param=name[:100])
    return {
        name: Received(file=upload.file, filename=upload.filename or "", param=name) for name, upload in files.items()
    }
