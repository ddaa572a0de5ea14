"""Around the whole application: who may talk to it, how much and how long, and what every answer carries.

A page of another site must not use a server that listens on this machine: requests that name another host (a rebound
name) or come from another origin are refused, and nothing is allowed across origins. Bodies are counted as they arrive.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from openltx.serve.log import happened
from openltx.serve.metrics import Metrics
from openltx.serve.problems import ApiError, problem_of
from openltx.serve.settings import ServerSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        b"frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (b"cache-control", b"no-store"),
]
"""What every answer carries unless it has its own."""


class Guard:
    """ASGI middleware: checks before, limits during, headers and a line in the log after each request."""

    def __init__(self, app: App, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._limits = settings.limits
        self._metrics = metrics
        self._hosts = {*LOOPBACK, settings.host.lower()} if settings.host not in _EVERYWHERE else None
        self._in_flight = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status, has_begun = time.perf_counter(), 500, False

        async def send_guarded(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                own = {name for name, _ in message.get("headers", ())}
                added = [header for header in _HEADERS if header[0] not in own]
                if status in (408, 413):  # the rest of the body is not read
                    added.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        self._in_flight += 1
        try:
            self._admit(Headers(scope=scope))
            await self._app(scope, self._counted(scope, receive), send_guarded)
        except ApiError as problem:
            await problem.response()(scope, receive, send_guarded)
        except Exception as error:  # the outermost place: no traceback may leave the server
            happened("request.broken", exc_info=True)
            if has_begun:
                raise  # too late for another answer: the server cuts the connection
            await problem_of(error).response()(scope, receive, send_guarded)
        finally:
            self._in_flight -= 1
            self._note(scope, status, time.perf_counter() - started)

    def _admit(self, headers: Headers) -> None:
        """Raise ``ApiError`` for a request that is not for this server, or one too many."""
        if self._in_flight > self._limits.connections:
            raise ApiError(503, "Too many requests at once. Try again.", code="busy", headers={"Retry-After": "1"})
        host = headers.get("host", "")
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            raise ApiError(403, "This server does not answer under that host name.", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            raise ApiError(403, "Pages of other sites may not use this server.", code="wrong_origin")

    def _counted(self, scope: MutableMapping[str, Any], receive: Receive) -> Receive:
        """``receive``, with an end to the body's size and time."""
        if scope["method"] in ("GET", "HEAD"):
            return receive
        is_form = Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")
        most = self._limits.upload_bytes if is_form else self._limits.json_bytes
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > most:
            raise _too_large(most)
        deadline, received, is_complete = time.monotonic() + self._limits.body_seconds, 0, False

        async def receive_counted() -> Message:
            nonlocal received, is_complete
            if is_complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0))
            except TimeoutError:
                raise ApiError(408, "The body of the request came too slowly.", code="timeout") from None
            received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if received > most:
                raise _too_large(most)
            return message

        return receive_counted

    def _note(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requested(scope["method"], route, status, seconds)
        if scope["method"] not in ("GET", "HEAD") or status >= 400:
            key = scope.get("state", {}).get("key")
            happened(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                milliseconds=round(1000 * seconds, 1),
                key=key,
            )


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body has more than {most} bytes, which is all that is taken.", code="too_large")


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None
