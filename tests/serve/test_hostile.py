"""Requests that mean harm: a clear answer of 400 and above in the envelope, and a server that goes on."""

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serve_hostile import attacks, from_schema, send

FILE = f"file-{'0' * 32}"


@pytest.fixture(autouse=True)
def _alive_and_unharmed(server: Any) -> Any:
    mark = len(server.events)
    yield
    assert server.call("GET", "/healthz").status == 200
    assert server.process.poll() is None
    assert [line for line in server.events[mark:] if line["event"] in ("request.broken", "worker.died")] == []
    assert list((server.data / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"prompt"',
        b'{"prompt": "a ball"} trailing',
        b'{"prompt": ' + b"[" * 100_000 + b"}",
        b"\xff\xfe",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a\\u0000b"}',
        b'{"\\ud800": 1}',
        b'{"prompt": "a ball", "seed": 1e400}',
        b'{"prompt": "a ball", "seed": -1}',
        b'{"prompt": "a ball", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "a ball", "fps": NaN}',
        b'{"prompt": "a ball", "fps": 1e-320}',
        b'{"prompt": "a ball", "cfg": Infinity}',
        b'{"prompt": "a ball", "frames": 1000000000000}',
        b'{"prompt": "a ball", "steps": 0}',
        b'{"prompt": "a ball", "size": "99999999999999999999x1"}',
        b'{"prompt": "a ball", "size": "0x0"}',
        b'{"prompt": "a ball", "seconds": "99999"}',
        b'{"prompt": "a ball", "seconds": "1e3"}',
        b'{"prompt": "a ball", "image": "/etc/passwd"}',
        b'{"prompt": "a ball", "image": "file:///etc/passwd"}',
        b'{"prompt": "a ball", "video": "../server.db", "skip_initial": 1}',
        b'{"prompt": "a ball", "keyframes": ["/etc/passwd@0"]}',
        b'{"prompt": "a ball", "input_reference": {"image_url": "http://127.0.0.1/x.png"}}',
        b'{"prompt": "a ball", "input_reference": {"image_url": "file:///etc/passwd"}}',
        b'{"prompt": "a ball", "input_reference": {"image_url": "data:image/png;base64,####"}}',
        b'{"prompt": "a ball", "input_reference": {"image_url": "data:image/png;base64,AAAA"}}',
        b'{"prompt": "a ball", "input_reference": {"file_id": "../x"}}',
        b'{"prompt": "a ball", "times": [1, "x"]}',
        b'{"prompt": "a ball", "skip_blocks": [[[[1]]]]}',
        b'{"prompt": "a ball", "guidance_times": [1.0, 0.5], "cfg": [1.0]}',
        b'{"prompt": {"a": 1}}',
        b'{"prompt": "   "}',
        b'{"prompt": "a ball", "__proto__": 1}',
        b'{"prompt": "a ball", "priority": 100000000000000000000}',
        b'{"prompt": "' + b"x" * 100_000 + b'"}',
        b'{"prompt": "a ball", "model": "../../model.safetensors"}',
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_bodies_that_are_no_request(server: Any, body: bytes) -> None:
    before = server.call("GET", "/v1/videos?limit=1").body
    answer = server.call("POST", "/v1/videos", body, {"Content-Type": "application/json"})
    assert answer.status in (400, 404)
    assert str(server.data) not in answer.error["message"]
    assert server.call("GET", "/v1/videos?limit=1").body == before


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=", b"--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nhalf'),
        ("multipart/form-data; boundary=x", b"\x00" * 1000),
        ("application/x-www-form-urlencoded", b"prompt=a"),
        ("text/plain", b'{"prompt": "a ball"}'),
        ("application/json; charset=utf-16", b"\xff\xfe{"),
    ],
)
def test_forms_that_are_none(server: Any, content_type: str, body: bytes) -> None:
    answer = server.call("POST", "/v1/videos", body, {"Content-Type": content_type})
    assert answer.status in (400, 415)
    assert answer.error["message"]


def test_forms_with_too_much_in_them(server: Any) -> None:
    many, kind = server.form({f"field{index}": "x" for index in range(500)}, {})
    assert server.call("POST", "/v1/videos", many, {"Content-Type": kind}).error["message"]
    large, kind = server.form({"prompt": "x" * 2_000_000}, {})
    assert server.call("POST", "/v1/videos", large, {"Content-Type": kind}).status == 400
    twice, kind = server.form({"prompt": "a ball", "steps": "1", "steps[]": "2", "steps[a]": "3"}, {})
    assert server.call("POST", "/v1/videos", twice, {"Content-Type": kind}).status == 400
    files, kind = server.form({"prompt": "a ball"}, {"image": ("x.png", b"x", "image/png")})
    assert server.call("POST", "/v1/videos", files, {"Content-Type": kind}).error["param"] == "image"
    two = {"input_reference": ("x.png", b"x", "image/png"), "other": ("x.png", b"x", "image/png")}
    files, kind = server.form({"prompt": "a ball"}, two)
    assert server.call("POST", "/v1/videos", files, {"Content-Type": kind}).status == 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
        b"<html>",
        b"\xff\xd8\xff" + b"\0" * 50,
        b"PK\x03\x04" + b"\0" * 50,
    ],
)
def test_uploads_that_are_no_media(server: Any, content: bytes) -> None:
    for answer in (
        server.upload(content, "x.png"),
        server.call("POST", "/v1/videos", *_picture_form(server, content)),
    ):
        assert (answer.status, answer.error["code"]) == (400, "invalid_file")
        assert str(server.data) not in answer.error["message"]


def _picture_form(server: Any, content: bytes) -> tuple[bytes, dict[str, str]]:
    body, kind = server.form({"prompt": "a ball"}, {"input_reference": ("../../x.png", content, "image/png")})
    return body, {"Content-Type": kind}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/videos/../../etc/passwd"),
        ("GET", "/v1/videos/..%2f..%2fserver.db"),
        ("GET", "/v1/videos/..%2f..%2fserver.db/content"),
        ("GET", "/v1/videos/%00/content"),
        ("GET", f"/v1/videos/{'x' * 5000}"),
        ("DELETE", "/v1/videos/."),
        ("DELETE", "/v1/files/..%2fserver.db"),
        ("GET", f"/v1/files/{FILE}/content"),
        ("GET", "/v1/videos/%ff%fe"),
        ("GET", "/v1/videos/%ed%a0%80"),
        ("POST", "/v1/videos/none/remix"),
        ("POST", "/v1/videos/none/cancel"),
        ("GET", "/v1/videos/none/events"),
        ("PUT", "/v1/videos"),
        ("PATCH", "/v1/videos/none"),
        ("GET", "/v1/videos/"),
        ("GET", "//"),
        ("TRACE", "/v1/videos"),
        ("GET", "/v1/models/../x"),
        ("GET", "/v1/videos?limit=0"),
        ("GET", "/v1/videos?limit=99999999999999999999"),
        ("GET", "/v1/videos?order=up"),
        ("GET", "/v1/videos?after=none"),
        ("GET", f"/v1/videos?after={'x' * 1000}"),
    ],
)
def test_addresses_that_lead_nowhere(server: Any, method: str, path: str) -> None:
    body = {"prompt": "a ball"} if method == "POST" else None
    answer = server.call(method, path, body)
    assert answer.status in (400, 404, 405)
    assert answer.error["message"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=range(7),
)
def test_bytes_that_are_no_http(server: Any, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        answer = b""
        with suppress(OSError):  # closed with our bytes unread
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert 400 <= int(head.split()[1]) < 500
        assert json.loads(body)["error"]["message"]
    assert server.call("GET", "/healthz").status == 200


def test_a_head_beyond_the_limit_is_refused_while_it_arrives(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        sent = 0
        with suppress(OSError):
            while sent < 100:
                connection.sendall(b"X-Long: " + b"x" * 0x10000 + b"\r\n")
                sent += 1
        assert sent < 60
    assert server.call("GET", "/healthz").status == 200


def test_a_body_beyond_the_limit_is_refused_while_it_arrives(server: Any) -> None:
    """It is cut off after the limit, whatever length was announced, and without reading the rest."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(
            b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        sent, chunk = 0, b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with suppress(OSError):
            while sent < 100:
                connection.sendall(chunk)
                sent += 1
        assert sent < 60
    assert server.call("GET", "/healthz").status == 200
    announced = {"Content-Type": "application/json", "Content-Length": "99999999999"}
    answer = server.call("POST", "/v1/videos", b"{", announced)
    assert (answer.status, answer.error["code"]) == (413, "too_large")


def test_whatever_the_attack_the_answer_is_clear(server: Any, tmp_path: Path) -> None:
    for attack in attacks(tmp_path, 60, seed=3):
        status = send(server, attack)
        assert status < 500 or status == 503, attack


def test_requests_made_from_the_openapi_document_are_answered(server: Any) -> None:
    pytest.importorskip("schemathesis")
    statuses = from_schema(server, 60, seed=3)
    assert statuses.total() >= 50
    assert {status for status in statuses if status >= 500} <= {503}
    for job in server.call("GET", "/v1/videos?limit=100").json()["data"]:
        server.call("DELETE", f"/v1/videos/{job['id']}")
