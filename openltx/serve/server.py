"""A server's life: folder, database, supervisor and web server, started in this order and stopped in the other."""

import gc
import signal
import socket
import threading
from typing import Any

import uvicorn

from openltx.errors import ServeError
from openltx.serve.app import create_app
from openltx.serve.context import Context
from openltx.serve.guard import LOOPBACK
from openltx.serve.log import happened, log_as_json
from openltx.serve.protocol import http_protocol
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
        http=http_protocol(limits.header_seconds, limits.header_bytes),
        loop="auto",  # uvloop where it is installed
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
    gc.collect()
    gc.freeze()  # a quarter of a million objects that stay: a collection among them holds all requests up
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
