"""The protocol under the application: clients that never finish the head of a request are dropped."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from openltx.serve.protocol import http_protocol


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.6)  # longer than a client may take for its head: that is no reason to drop it
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(_hello, http=http_protocol(0.3, 65536), log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join()


def test_a_slow_head_is_cut_off_and_a_slow_answer_is_not(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as slow, socket.create_connection(address, timeout=10) as good:
        started = time.monotonic()
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        good.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(100) == b""
        assert time.monotonic() - started < 5
        answer = b""
        while not answer.endswith(b"ok"):
            answer += good.recv(100)
        good.sendall(b"GET / HTTP/1.1\r\nHost: ")  # nor may the second head be slow
        assert good.recv(100) == b""


def test_bytes_that_are_no_http_are_answered_in_the_envelope(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = b""
        while chunk := connection.recv(1000):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"invalid_http"' in answer
