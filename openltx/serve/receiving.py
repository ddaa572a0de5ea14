"""An upload from the wire to its place: hashed, decoded by somebody else, kept as a clean copy."""

import base64
import binascii
import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from openltx.errors import MediaError, OpenLTXError
from openltx.pipelines.request import GenerationRequest
from openltx.serve.context import Context
from openltx.serve.problems import ApiError
from openltx.serve.schema import FILE_ID, NAMES_FILES, VideoRequest, generation_fields
from openltx.serve.store.jobs import new_id
from openltx.serve.store.uploads import Upload

_NAME_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Received:
    """What a client has sent, and what it called it."""

    file: BinaryIO
    filename: str
    param: str

    def digest(self) -> str:
        """SHA-256 of what was sent."""
        self.file.seek(0)
        found = hashlib.sha256()
        while chunk := self.file.read(1 << 20):
            found.update(chunk)
        return found.hexdigest()


def of_data_url(url: str, param: str) -> bytes:
    """The bytes of a data URL; raises ``ApiError`` for other addresses, which a server has no business to fetch."""
    head, comma, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        message = "Only data:...;base64,... is read; other addresses are not fetched. Or upload it with POST /v1/files."
        raise ApiError(400, message, code="invalid_image_url", param=param)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "The data URL is not base64.", code="invalid_image_url", param=param) from None


def keep(context: Context, owner: str, received: Received, purpose: str = "vision") -> Upload:
    """Decode what came, and keep the clean copy as an upload of this owner.

    Raises ``ApiError`` for what cannot be decoded, ``QueueFullError`` if the owner keeps too much.
    """
    with context.files.scratch() as folder:
        raw = _on_disk(received, folder)
        try:
            decoded = context.decoder(raw)
        except MediaError as error:
            raise ApiError(400, str(error), code="invalid_file", param=received.param) from None
        now = time.time()
        upload = Upload(
            id=new_id("file-"),
            owner=owner,
            kind=decoded.kind,
            filename=_shown(received.filename),
            purpose=purpose,
            digest=received.digest(),
            bytes=decoded.file.stat().st_size,
            frames=decoded.frames,
            width=decoded.width,
            height=decoded.height,
            created_at=now,
            expires_at=now + context.settings.limits.keep_seconds,
        )
        place = context.files.upload(upload.id, upload.kind)
        decoded.file.replace(place)
    try:
        context.uploads.add(upload)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return upload


def settings_in(context: Context, owner: str, received: Received) -> dict[str, Any]:
    """What a video that openltx made says of itself, as JSON; nothing is kept.

    ``request`` has the fields that can be asked for again; ``missing`` names those whose files are not here. Raises
    ``ApiError`` for a file without such settings.
    """
    with context.files.scratch() as folder:
        try:
            found = context.decoder.metadata(_on_disk(received, folder))
        except MediaError as error:
            raise ApiError(400, str(error), code="invalid_file", param=received.param) from None
    request, missing = {}, []
    for name, value in _embedded_request(found).items():
        files = value if isinstance(value, list) else [value]
        if name in NAMES_FILES and not all(_is_here(context, owner, str(word)) for word in files):
            missing.append(name)
        else:
            request[name] = value
    return {
        "object": "video.settings",
        "model": found.get("model"),
        "fingerprint": found.get("fingerprint"),
        "openltx": found.get("openltx"),
        "seconds_taken": found.get("seconds_taken"),
        "request": request,
        "missing": missing,
    }


def _embedded_request(found: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a file's request that POST /v1/videos takes, as far as they are filled in."""
    try:
        embedded = GenerationRequest.from_json(found.get("request", ""))
        values = json.loads(embedded.to_json())
        fields = {field.name: values[field.name] for field in generation_fields()}
        VideoRequest.model_validate({name: value for name, value in fields.items() if name not in NAMES_FILES})
    except (OpenLTXError, ValidationError, TypeError, ValueError, AttributeError, RecursionError):
        message = (
            "There are no settings of openltx in this file. Videos that openltx made have them, as long as no other "
        )
        raise ApiError(400, f"{message}program wrote them anew.", code="no_settings", param="file") from None
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _is_here(context: Context, owner: str, word: str) -> bool:
    """Whether the file that a field or a keyframe names is an upload or a finished video of this owner."""
    match = re.match(FILE_ID, word)
    if match is None:
        return False
    if match[0].startswith("file-"):
        return context.uploads.get(owner, match[0]) is not None
    job = context.jobs.get(owner, match[0])
    return job is not None and job.status == "completed"


def _on_disk(received: Received, folder: Path) -> Path:
    raw = folder / "raw"
    received.file.seek(0)
    with raw.open("wb") as file:
        shutil.copyfileobj(received.file, file, 1 << 20)
    if raw.stat().st_size == 0:
        raise ApiError(400, "The file is empty.", code="invalid_file", param=received.param)
    return raw


def _shown(filename: str) -> str:
    """A client's name for a file, fit to be shown: its last part, printable, not too long."""
    name = Path(filename.replace("\\", "/")).name
    return "".join(letter for letter in name if letter.isprintable())[:_NAME_LENGTH] or "upload"
