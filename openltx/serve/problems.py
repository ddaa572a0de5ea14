"""What goes wrong, in the envelope that OpenAI's clients know: {"error": {message, type, param, code}}.

Every answer of 400 and above has it. A message says what was asked and what to do; what happened inside is in the log.
"""

import errno
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from openltx.errors import OpenLTXError
from openltx.serve.log import happened
from openltx.serve.store.jobs import QueueFullError, TokenReusedError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer of 400 or above; ``param`` is the field that it is about, ``code`` a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    def response(self) -> JSONResponse:
        """The answer in the envelope."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, dict(self.headers or {}))


def problem_of(error: Exception) -> ApiError:
    """What to tell the client of any exception."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            return ApiError(429, str(error), code=error.code, headers={"Retry-After": str(error.retry_after)})
        case TokenReusedError():
            return ApiError(409, str(error), code="idempotency_key_reused")
        case OpenLTXError():
            return ApiError(400, str(error), code="invalid_request")
        case ValidationError() | RequestValidationError():
            return _of_fields(error)
        case ClientDisconnect():
            return ApiError(400, "The body of the request ended too early.", code="cut_short")
        case HTTPException():
            return ApiError(
                error.status_code, str(error.detail), code=_CODES.get(error.status_code), headers=error.headers
            )
        case OperationalError():
            return ApiError(503, "The server is busy. Try again.", code="busy", headers={"Retry-After": "2"})
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return ApiError(503, "The server's disk is full.", code="disk_full", headers={"Retry-After": "60"})
        case _:
            return ApiError(500, "The server made a mistake. Its log says more.", code="internal_error")


def answer_in_envelopes(app: FastAPI) -> None:
    """Let an application answer every exception with its problem."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        if problem.status == 500:
            happened("request.broken", exc_info=True)
        return problem.response()

    for kind in (
        ApiError,
        OpenLTXError,
        ValidationError,
        RequestValidationError,
        HTTPException,
        ClientDisconnect,
        OSError,
        OperationalError,
    ):
        app.add_exception_handler(kind, answer)


def _of_fields(error: ValidationError | RequestValidationError) -> ApiError:
    """The first field that is wrong, and why."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    if first["type"] == "extra_forbidden":
        return ApiError(400, f'There is no field "{place[0][:100]}".', code="unknown_parameter", param=place[0][:100])
    message = first["msg"].removeprefix("Value error, ")
    where = f"{place[0]}: " if place else ""
    return ApiError(400, f"{where}{message}", code="invalid_value", param=place[0] if place else None)


_CODES = {404: "not_found", 405: "method_not_allowed", 400: "invalid_request"}
