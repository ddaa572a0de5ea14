"""An upload from the wire to its place: hashed, decoded by somebody else, kept as a clean copy."""

import base64
import binascii
import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from openltx.errors import MediaError
from openltx.serve.context import Context
from openltx.serve.problems import ApiError
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
        raw = folder / "raw"
        received.file.seek(0)
        with raw.open("wb") as file:
            shutil.copyfileobj(received.file, file, 1 << 20)
        if raw.stat().st_size == 0:
            raise ApiError(400, "The file is empty.", code="invalid_file", param=received.param)
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


def _shown(filename: str) -> str:
    """A client's name for a file, fit to be shown: its last part, printable, not too long."""
    name = Path(filename.replace("\\", "/")).name
    return "".join(letter for letter in name if letter.isprintable())[:_NAME_LENGTH] or "upload"
