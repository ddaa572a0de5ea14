"""Bodies of requests as plain values: JSON as it is, forms as the JSON that they stand for.

A form's ``a[b]`` is an object, its ``a[]`` or repeated ``a`` a list. A value that begins like a list or an object is
read as JSON, except for free text. Empty fields count as left out, as browsers send them.
"""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from openltx.serve.problems import ApiError

MOST_FIELDS = 100
MOST_FIELD_BYTES = 1_000_000
_FREE_TEXT = ("prompt", "negative")


async def read_body(request: Request) -> tuple[dict[str, Any], dict[str, UploadFile]]:
    """The fields and the files of a request's body; raises ``ApiError`` for what is neither JSON nor a form."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    match kind:
        case "multipart/form-data":
            form = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
            values = _of_form(form)
            files = {name: value for name, value in form.items() if isinstance(value, UploadFile)}
        case "application/json":
            values, files = _of_json(await request.body()), {}
        case _:
            raise ApiError(415, f"Send application/json or multipart/form-data, not {kind[:80]}.", code="wrong_type")
    _require_text(values)
    return values, files


def _of_json(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON that can be read.", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(400, "The body is JSON, but not an object of fields.", code="invalid_json")
    return values


def _of_form(form: FormData) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in form.multi_items():
        if not isinstance(text, str) or (text == "" and name not in _FREE_TEXT):
            continue
        field, _, inner = name.partition("[")
        value = text if field in _FREE_TEXT else _value(text)
        if name.endswith("[]") or (name == "keyframes" and isinstance(value, str)):
            values.setdefault(field, [])
            if not isinstance(values[field], list):
                raise ApiError(400, f"{field[:100]} is given in two ways.", code="invalid_value")
            values[field].append(value)
        elif inner.endswith("]"):
            values.setdefault(field, {})
            if not isinstance(values[field], dict):
                raise ApiError(400, f"{field[:100]} is given in two ways.", code="invalid_value")
            values[field][inner[:-1]] = value
        elif name in values:
            values[name] = [*values[name], value] if isinstance(values[name], list) else [values[name], value]
        else:
            values[name] = value
    return values


def _value(text: str) -> Any:
    if text[:1] not in "[{":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _require_text(value: Any) -> None:
    """Raise ``ApiError`` for half surrogates and NULs, which no database and no file can hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ApiError(400, "The body has half surrogates in it, which are no text.", code="invalid_text") from None
        if "\0" in value:
            raise ApiError(400, "The body has NUL characters in it, which are no text.", code="invalid_text")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _require_text(name)
            _require_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _require_text(inner)
