"""/v1/files: the OpenAI Files API, for the pictures and clips that videos are made from."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.concurrency import run_in_threadpool

from openltx.serve.bodies import read_body
from openltx.serve.content import file_answer
from openltx.serve.context import Caller, Context, Here
from openltx.serve.log import happened
from openltx.serve.problems import ApiError
from openltx.serve.receiving import Received, keep
from openltx.serve.store.keys import Key
from openltx.serve.store.uploads import Upload
from openltx.serve.views import Deleted, FileObject, JSONAnswer, file_object

router = APIRouter(prefix="/v1/files", tags=["files"])

_MEDIA_TYPES = {"picture": "image/png", "clip": "video/mp4"}
_FILE = {"type": "string", "format": "binary"}


def _form(**fields: Any) -> dict[str, Any]:
    schema = {"type": "object", "required": ["file"], "properties": {"file": _FILE, **fields}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


FILE_BODY = _form()
"""A form with a file in it, for the OpenAPI page."""


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    purpose: Annotated[str, StringConstraints(max_length=64)] = "vision"


@router.post("", response_model=FileObject, openapi_extra=_form(purpose={"type": "string"}))
async def create(request: Request, context: Here, key: Caller) -> JSONAnswer:
    """Send a picture or a clip. It is decoded here and now, and kept as a PNG or an MP4."""
    values, files = await read_body(request)
    fields = _Fields.model_validate(values)
    if set(files) != {"file"}:
        raise ApiError(400, 'Send a form with the file in the field "file".', code="missing_file", param="file")
    received = Received(file=files["file"].file, filename=files["file"].filename or "", param="file")
    upload = await run_in_threadpool(keep, context, key.id, received, fields.purpose)
    happened("upload.kept", upload=upload.id, key=key.id, kind=upload.kind, bytes=upload.bytes)
    return JSONAnswer(file_object(upload))


@router.get("")
async def index(context: Here, key: Caller) -> JSONAnswer:
    """Your uploads, the latest first."""
    uploads = await context.look(context.uploads.all, key.id)
    return JSONAnswer({"object": "list", "data": [file_object(upload) for upload in uploads], "has_more": False})


@router.get("/{file_id}", response_model=FileObject)
async def retrieve(file_id: str, context: Here, key: Caller) -> JSONAnswer:
    """What an upload turned out to be."""
    return JSONAnswer(file_object(await context.look(_upload, context, key, file_id)))


@router.delete("/{file_id}", response_model=Deleted)
def delete(file_id: str, context: Here, key: Caller) -> JSONAnswer:
    """Delete an upload. Jobs that use it have it for themselves."""
    if not context.uploads.delete(key.id, file_id):
        raise _no_such_file()
    context.files.discard_upload(file_id)
    return JSONAnswer({"id": file_id, "object": "file", "deleted": True})


@router.api_route("/{file_id}/content", methods=["GET", "HEAD"], response_class=Response)
async def content(file_id: str, request: Request, context: Here, key: Caller) -> Response:
    """The decoded upload: a PNG or an MP4."""
    upload = await context.look(_upload, context, key, file_id)
    path = context.files.upload(upload.id, upload.kind)
    try:
        return file_answer(request, path, _MEDIA_TYPES[upload.kind], path.name)
    except FileNotFoundError:
        raise _no_such_file() from None


def _upload(context: Context, key: Key, file_id: str) -> Upload:
    upload = context.uploads.get(key.id, file_id)
    if upload is None:
        raise _no_such_file()
    return upload


def _no_such_file() -> ApiError:
    return ApiError(404, "There is no such file.", code="file_not_found", param="file_id")
