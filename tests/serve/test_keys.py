"""A server with keys: each sees its own and nothing else, and nobody without one gets in."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from openltx.cli import main

SLOW = {"prompt": "a ball", "steps": 200, "size": "256x256"}


@pytest.fixture
def secrets(server: Any, capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, str]]:
    """Keys for ann and bob while the server runs; afterwards it is open again, without jobs of theirs."""
    data, made = ["--data", str(server.data)], {}
    for name in ("ann", "bob"):
        assert main(["serve", "keys", "add", name, *data]) == 0
        made[name] = capsys.readouterr().out.strip()
    assert _status_within_two_seconds(server, None, 401)
    yield made
    for name, key in made.items():
        for job in server.call("GET", "/v1/videos?limit=100", key=key).json()["data"]:
            server.call("DELETE", f"/v1/videos/{job['id']}", key=key)
        assert main(["serve", "keys", "remove", name, *data]) == 0
        if name == "ann":
            assert _status_within_two_seconds(server, key, 401)
    assert _status_within_two_seconds(server, None, 200)


def _status_within_two_seconds(server: Any, key: str | None, status: int) -> bool:
    """A server finds out within a second what another process did to its keys."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if server.call("GET", "/v1/videos", key=key).status == status:
            return True
        time.sleep(0.05)
    return server.call("GET", "/v1/videos", key=key).status == status


def test_nobody_without_a_key_gets_in(server: Any, secrets: dict[str, str]) -> None:
    for key in (None, "wrong", "oltx-" + "x" * 43):
        for path in ("/v1/videos", "/v1/models", "/v1/files", "/metrics"):
            answer = server.call("GET", path, key=key)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    for path in ("/healthz", "/readyz"):
        assert server.call("GET", path).status == 200
    assert all(secret not in str(server.events) for secret in secrets.values())


def test_a_key_sees_its_own_jobs_and_no_others(server: Any, secrets: dict[str, str]) -> None:
    ann, bob = secrets["ann"], secrets["bob"]
    job = server.call("POST", "/v1/videos", SLOW, key=ann).json()
    for method, path in (
        ("GET", ""),
        ("GET", "/content"),
        ("GET", "/events"),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/remix"),
    ):
        body = {"prompt": "mine"} if method == "POST" else None
        answer = server.call(method, f"/v1/videos/{job['id']}{path}", body, key=bob)
        assert (answer.status, answer.error["code"]) == (404, "video_not_found")
    assert server.call("GET", "/v1/videos", key=bob).json()["data"] == []
    assert len(server.call("GET", "/v1/videos", key=ann).json()["data"]) == 1
    stolen = server.call("POST", "/v1/videos", {"prompt": "a", "keyframes": [f"{job['id']}@0"]}, key=bob)
    assert (stolen.status, stolen.error["code"]) == (404, "file_not_found")


def test_a_greedy_key_is_told_when_to_come_back_and_others_are_served(server: Any, secrets: dict[str, str]) -> None:
    for _ in range(20):
        assert server.call("POST", "/v1/videos", SLOW, key=secrets["ann"]).status == 200
    full = server.call("POST", "/v1/videos", SLOW, key=secrets["ann"])
    assert (full.status, full.error["code"]) == (429, "too_many_jobs")
    assert int(full.headers["retry-after"]) >= 1
    assert server.call("POST", "/v1/videos", SLOW, key=secrets["bob"]).status == 200
