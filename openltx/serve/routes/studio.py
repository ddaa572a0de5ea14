"""The studio: the page at / and the files it is made of.

They are read once, when the application is made. What a client names is looked up among them, never on the disk. They
hold nothing of anybody, so they need no key.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response

from openltx.serve.problems import ApiError

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

Known = Annotated[str, Header(alias="If-None-Match")]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of the page."""

    body: bytes
    media_type: str
    tag: str


@cache
def parts() -> dict[str, Part]:
    """The files of the page by their names."""
    found = {}
    for file in (files("openltx.serve") / "studio").iterdir():
        media_type = _MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            found[file.name] = Part(body=body, media_type=media_type, tag=tag)
    return found


@router.api_route("/", methods=["GET", "HEAD"])
def page(known: Known = "") -> Response:
    """The studio."""
    return _answer("index.html", known)


@router.api_route("/studio/{name}", methods=["GET", "HEAD"])
def part(name: str, known: Known = "") -> Response:
    """A file of the studio."""
    return _answer(name, known)


def _answer(name: str, known: str) -> Response:
    """A file, or 304 if the browser has it already. It asks each time, so a new version is seen at once."""
    found = parts().get(name)
    if found is None:
        raise ApiError(404, "There is no such page.", code="not_found")
    headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
    if found.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.media_type)
