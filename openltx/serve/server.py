"""A server's life: folder, database, supervisor and web server, started in this order and stopped in the other."""

import asyncio
import signal
import socket
import threading
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from openltx.errors import ServeError
from openltx.serve.app import create_app
from openltx.serve.context import Context
from openltx.serve.guard import LOOPBACK
from openltx.serve.log import happened, log_as_json
from openltx.serve.problems import ApiError
from openltx.serve.settings import ServerSettings
from openltx.serve.supervisor import Supervisor

GRACE_SECONDS = 10


def serve(settings: ServerSettings) -> None:
    """Serve until SIGINT or SIGTERM; raises ``ServeError`` if the server cannot start."""
    log_as_json()
    context = Context.open(settings)
    try:
        with context.files.locked(shared=settings.is_shared):
            require_keys_outside(context)
            listener = listen(settings)
            with listener:
                _run(context, listener)
    finally:
        context.database.close()


def _run(context: Context, listener: socket.socket) -> None:
    failure: list[ServeError] = []

    def give_up(error: ServeError) -> None:
        failure.append(error)
        server.should_exit = True
        context.stopping.set()

    limits = context.settings.limits
    config = uvicorn.Config(
        create_app(context),
        http=_protocol(limits.header_seconds),
        loop="asyncio",  # with Ray there is uvloop, too, but the server is the same with and without it
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="off",
        ws="none",
    )
    server = _Server(config, context.stopping)
    supervisor = Supervisor(context.settings, context.database, context.files, give_up)
    # uvicorn takes the signals over, and raises them again when it is done: they must not end this process before it is
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    supervisor.start()
    host, port = listener.getsockname()[:2]
    happened("server.started", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", data=context.settings.data)
    try:
        server.run(sockets=[listener])
    finally:
        supervisor.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
        happened("server.stopped")
    if failure:
        raise failure[0]


class _Server(uvicorn.Server):
    """Ends the event streams as soon as it is told to stop, so that nobody waits for them."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


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


def _protocol(header_seconds: float) -> type[H11Protocol]:
    """HTTP/1.1, with an end to the time that a client may take for the head of a request."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:  # uvloop has transports of its own
            super().connection_made(_Gathering(transport, self.loop))  # pyright: ignore[reportArgumentType]
            self._deadline = self.loop.call_later(header_seconds, self._give_up)

        def on_response_complete(self) -> None:
            self._deadline.cancel()
            self._deadline = self.loop.call_later(header_seconds, self._give_up)
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._deadline.cancel()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            if self.cycle is None or self.cycle.response_complete:  # no whole head has come in that time
                self.transport.close()

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn says too much about itself)
            body = ApiError(400, "This is not HTTP that can be read.", code="invalid_http").response().body
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + bytes(body))
            self.transport.close()

    return Protocol


def listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # named, or asyncio leaves Nagle's delay on
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ServeError(
            f"Cannot listen on {settings.host}:{settings.port}: {error}. Choose another --port or --host."
        ) from error
    return listener


def require_keys_outside(context: Context) -> None:
    """Raise ``ServeError`` for a server that everybody in the network could use."""
    if context.settings.host not in LOOPBACK and not context.keys.all():
        raise ServeError(
            f"Listening on {context.settings.host} lets others in, and there are no keys. Make one first: "
            "openltx serve keys add NAME"
        )
