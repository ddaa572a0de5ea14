"""HTTP/1.1 as the server speaks it: parsed by llhttp, with limits on the head, and errors in our own words."""

import asyncio
import math
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openltx.serve.problems import ApiError


class _Gathering:
    """A transport that sends what is written in one turn of the loop at once: an answer's head and body are one packet.

    Sending is the dearest part of a small answer.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._waiting:
            data, self._waiting = b"".join(self._waiting), []
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def http_protocol(header_seconds: float, header_bytes: int) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, with an end to the time and the bytes that a client may take for the head of a request."""

    class Protocol(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:  # uvloop has transports of its own
            super().connection_made(_Gathering(transport, self.loop))  # pyright: ignore[reportArgumentType]
            self._head = 0.0  # bytes that have come since the last whole request
            self._deadline = self.loop.call_later(header_seconds, self._give_up)

        def data_received(self, data: bytes) -> None:
            self._head += len(data)
            super().data_received(data)
            if self._head > header_bytes and not self.transport.is_closing():
                words = f"The head of this request is larger than {header_bytes:,} bytes."
                self._refuse(ApiError(431, words, code="header_too_large"))

        def on_headers_complete(self) -> None:
            self._head = -math.inf  # what follows is a body, and has limits of its own
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._head = 0.0
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self._deadline.cancel()
            self._deadline = self.loop.call_later(header_seconds, self._give_up)
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._deadline.cancel()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn says too much about itself)
            self._refuse(ApiError(400, "This is not HTTP that can be read.", code="invalid_http"))

        def _give_up(self) -> None:
            if self.cycle is None or self.cycle.response_complete:  # no whole head has come in that time
                self.transport.close()

        def _refuse(self, error: ApiError) -> None:
            response = error.response()
            head = [f"HTTP/1.1 {response.status_code} {_PHRASES[response.status_code]}", "connection: close"]
            head += [f"{name.decode()}: {value.decode()}" for name, value in response.raw_headers]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + bytes(response.body))
            self.transport.close()

    return Protocol


_PHRASES = {400: "Bad Request", 431: "Request Header Fields Too Large"}
