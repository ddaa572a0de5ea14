"""Files as answers: whole, or the range that a player asks for. (RFC 9110, section 14; one range at a time.)

The file is opened before the answer begins, so that a deletion meanwhile cannot break it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from openltx.serve.problems import ApiError

_CHUNK = 1 << 18
_AT_ONCE = 1 << 20
"""Up to so many bytes are read here and now: that is quicker than to hand them to a thread."""


def file_answer(request: Request, path: Path, media_type: str, filename: str, *, changes: bool = False) -> Response:
    """The bytes of a file that are asked for; raises ``FileNotFoundError``, and ``ApiError`` 416 beyond its end.

    Unless it ``changes``, a client may keep it.
    """
    file = path.open("rb")
    try:
        status = os.fstat(file.fileno())
        tag = f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": tag,
            "Cache-Control": "no-store" if changes else "private, max-age=3600",
            "Content-Disposition": f'inline; filename="{filename}"',
        }
        if tag in request.headers.get("if-none-match", ""):
            file.close()
            return Response(status_code=304, headers=headers)
        wanted = _range(request, status.st_size, tag)
        start, end = wanted or (0, status.st_size)
        headers["Content-Length"] = str(end - start)
        if wanted is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{status.st_size}"
    except BaseException:
        file.close()
        raise
    code = 200 if wanted is None else 206
    if request.method == "HEAD":
        file.close()
        return Response(status_code=code, headers=headers, media_type=media_type)
    if end - start <= _AT_ONCE:
        with file:
            file.seek(start)
            return Response(file.read(end - start), code, headers, media_type)
    return StreamingResponse(_chunks(file, start, end), code, headers, media_type)


def _range(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """Start and end of the one range that is asked for; None for the whole file, and for what is not understood."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        headers = {"Content-Range": f"bytes */{size}"}
        raise ApiError(416, f"The file has {size} bytes; the range begins behind them.", code="range", headers=headers)
    return start, end


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = end - start
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk
