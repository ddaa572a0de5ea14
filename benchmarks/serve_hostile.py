"""Hostile requests: what the server answers, and what it has left of its memory.

    python -m benchmarks.serve_hostile [--requests 500] [--seed 1] [--json FILE]

Three fifths are made by schemathesis from the server's own OpenAPI document, half of these against its rules. The rest
is made here: media that are cut, lie or swell, paths in place of names, huge and deep bodies, wrong types, and heads of
requests that never end. A server that holds answers each with a status below 500 (or 503, on purpose).
"""

import base64
import io
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serve_harness import Server, arguments, publish, resident_bytes
from openltx.media.io import write_video

FILE = f"file-{'0' * 32}"
HEADER_SECONDS = 10.0  # the server's own limit for the head of a request


@dataclass(frozen=True)
class Attack:
    """One request; ``kind`` is what it tries."""

    kind: str
    method: str
    path: str
    body: bytes | None = None
    content_type: str = "application/json"


def attacks(folder: Path, count: int, seed: int) -> list[Attack]:
    """So many of the requests that are made here, of each kind about as many."""
    chance = random.Random(seed)
    makers = (_media(folder, chance), _paths(chance), _bodies(), _types(chance))
    kinds: list[list[Attack]] = [list(maker) for maker in makers]
    for kind in kinds:
        chance.shuffle(kind)
    found: list[Attack] = []
    while len(found) < count and any(kinds):
        found += [kind.pop() for kind in kinds if kind]
    return found[:count]


def _media(folder: Path, chance: random.Random) -> Iterator[Attack]:
    files = dict(_samples(folder))
    for name, content in files.items():
        for _ in range(6):
            yield _upload("media cut short", name, content[: chance.randrange(len(content))])
        for _ in range(4):
            broken = bytearray(content)
            for _ in range(20):
                broken[chance.randrange(16, len(broken))] = chance.randrange(256)
            yield _upload("media with wrong bytes", name, bytes(broken))
    for side in (20_000, 60_000, 2**31 - 1):
        yield _upload("media that swell", "x.png", _png(side, side))
    yield _upload("media that swell", "x.png", _png(4000, 4000, zlib.compress(bytes(300_000_000), 9)))
    yield _upload("media that swell", "x.gif", _gif(30_000, 30_000))
    yield _upload("media that swell", "x.zip", b"PK\x03\x04" + zlib.compress(bytes(10**7)))
    for name, content in (
        ("x.png", files["x.mp4"]),
        ("x.mp4", files["x.png"]),
        ("x.png", b"<svg/>"),
        ("x", b"\0" * 999),
    ):
        yield _upload("media that lie", name, content)
    for name in ("../../server.db", "/etc/passwd", "a\0b.png", "\u202egnp.exe", "x" * 5000, "con", "a/b\\c"):
        yield _upload("paths", name, files["x.png"])
    for url in ("file:///etc/passwd", "http://127.0.0.1:1/", "data:image/png;base64,", "data:,x", "//x"):
        yield _order("paths", {"input_reference": {"image_url": url}})
    bomb = base64.b64encode(_png(60_000, 60_000)).decode()
    yield _order("media that swell", {"conditioning": [{"image_url": f"data:image/png;base64,{bomb}"}] * 3})


def _samples(folder: Path) -> Iterator[tuple[str, bytes]]:
    """A small file of each kind."""
    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    for name in ("x.mp4", "x.gif", "x.webp"):
        write_video(folder / name, frames, 8.0)
        yield name, (folder / name).read_bytes()
    for name in ("x.png", "x.jpeg"):
        buffer = io.BytesIO()
        Image.fromarray(frames[0]).save(buffer, name[2:].upper())
        yield name, buffer.getvalue()


def _png(width: int, height: int, data: bytes | None = None) -> bytes:
    """A PNG that claims a size, with whatever compressed data."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000)) if data is None else data),
        (b"IEND", b""),
    )
    chunks = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6) + b";"


def _paths(chance: random.Random) -> Iterator[Attack]:
    names = [
        "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "video_%00", "....//", "server.db", "%c0%ae%c0%ae", "~root",
        "video_" + "f" * 32, "video_" + "f" * 33, "x" * 6000, "%ff%fe", "${jndi:ldap://x}", "'%20OR%201=1--", "*",
        "%0d%0aX:y",
    ]  # fmt: skip
    places = ["videos/{}", "videos/{}/content", "videos/{}/events", "files/{}", "files/{}/content", "models/{}"]
    for name in names:
        for place in chance.sample(places, 2):
            yield Attack("paths", chance.choice(("GET", "DELETE", "HEAD")), f"/v1/{place.format(name)}")
    for field in ("image", "video", "mask", "reference"):
        for value in ("/etc/passwd", "../server.db", f"{FILE}/../x", "file:///x"):
            yield _order("paths", {field: value, "skip_initial": 1})
    for value in ("/etc/passwd@0", "x.png[0:1]@0", f"{FILE}[::]@0", f"{FILE}@0@1"):
        yield _order("paths", {"keyframes": [value]})


def _bodies() -> Iterator[Attack]:
    for name, body in (
        ("no JSON", b"{"), ("no JSON", b"\xff\xfe\0"), ("no JSON", b"[1]"), ("no JSON", b""), ("deep", b"[" * 200_000),
        ("deep", b'{"prompt":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001),
        ("huge", b'{"prompt":"' + b"x" * 25_000_000),
        ("huge", b'{"prompt":"' + b"x" * 2_000_000 + b'"}'), ("huge", b'{"prompt":"a","seed":' + b"9" * 100_000 + b"}"),
        ("huge", json.dumps({f"f{n}": n for n in range(100_000)}).encode()),
        ("huge", json.dumps({"prompt": "a", "times": [1.0] * 100_000}).encode()),
        ("huge", json.dumps({"prompt": "a", "conditioning": [{}] * 10_000}).encode()),
        ("text", b'{"prompt":"\\ud800"}'), ("text", b'{"prompt":"a\\u0000"}'), ("twice", b'{"prompt":"a","prompt":1}'),
    ):  # fmt: skip
        for path in ("/v1/videos", "/v1/plan"):
            yield Attack(f"bodies: {name}", "POST", path, body)
    many = b"".join(b'--m\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % n for n in range(2000))
    for body in (many + b"--m--", b"--m\r\n", b"--m--", b"--x--", b"\r\n" * 10_000, many[:-40]):
        yield Attack("bodies: forms", "POST", "/v1/videos", body, "multipart/form-data; boundary=m")
    for kind in (
        "multipart/form-data",
        "multipart/form-data; boundary=" + "m" * 5000,
        "text/xml",
        "application/x-gzip",
        "\xff",
    ):
        yield Attack("bodies: types", "POST", "/v1/videos", b"x", kind)


def _types(chance: random.Random) -> Iterator[Attack]:
    values = [None, [], {}, "x", "", -1, 1.5, True, 10**30, [[[]]], {"a": 1}, "1e999", [None], "\u0000"]
    fields = [
        "prompt", "seconds", "size", "model", "input_reference", "steps", "frames", "fps", "cfg", "seed", "keyframes",
        "conditioning", "priority", "times", "skip_blocks", "stg_mode", "fit", "image_strength", "tile", "negative",
    ]  # fmt: skip
    for field in fields:
        for value in chance.sample(values, 5):
            path = chance.choice(("/v1/videos", "/v1/plan", "/v1/videos/extensions", "/v1/videos/edits"))
            yield Attack("wrong types", "POST", path, json.dumps({"prompt": "a", "steps": 0, field: value}).encode())


def _order(kind: str, fields: dict[str, Any]) -> Attack:
    return Attack(kind, "POST", "/v1/videos", json.dumps({"prompt": "a ball", **fields}).encode())


def _upload(kind: str, name: str, content: bytes) -> Attack:
    quoted = name.replace('"', "%22").replace("\n", " ").encode()
    head = b'--m\r\nContent-Disposition: form-data; name="file"; filename="' + quoted + b'"\r\n\r\n'
    body = head + content + b"\r\n--m--\r\n"
    path = "/v1/videos/settings" if len(content) % 3 == 0 else "/v1/files"
    return Attack(kind, "POST", path, body, "multipart/form-data; boundary=m")


def send(server: Server, attack: Attack) -> int:
    """The status of the answer; 0 if the server cut the connection."""
    try:
        headers = {"Content-Type": attack.content_type}
        return server.call(attack.method, attack.path, attack.body, headers).status
    except (OSError, ValueError):  # a name that http.client itself refuses to send is sent as bytes
        return _send_raw(server, attack)


def _send_raw(server: Server, attack: Attack) -> int:
    body = attack.body or b""
    path = attack.path.encode("latin-1", "replace").replace(b" ", b"%20")
    kind = attack.content_type.encode("latin-1", "replace")
    head = b"%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection, suppress(OSError):
        connection.sendall(head % (attack.method.encode(), path, kind, len(body)) + body)
        answer = connection.recv(100)
        return int(answer.split()[1]) if answer else 0
    return 0


def slow_heads(server: Server, count: int) -> list[float]:
    """Seconds until the server hangs up on each of so many connections whose heads come byte by byte."""
    seconds = []

    def trickle() -> None:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection, suppress(OSError):
            connection.settimeout(0.5)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
            while time.monotonic() - started < 5 * HEADER_SECONDS:
                connection.sendall(b"x")
                with suppress(TimeoutError):
                    if connection.recv(1) == b"":
                        break
        seconds.append(time.monotonic() - started)

    threads = [threading.Thread(target=trickle) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def from_schema(server: Server, count: int, seed: int) -> Counter[int]:
    """Statuses of so many requests that schemathesis makes of the server's OpenAPI document."""
    import hypothesis
    import schemathesis
    from schemathesis import GenerationMode

    document = server.call("GET", "/openapi.json").json()
    statuses: Counter[int] = Counter()
    for mode in (GenerationMode.NEGATIVE, GenerationMode.POSITIVE):

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=count // 2,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=schemathesis.openapi.from_dict(document).as_strategy(generation_mode=mode))
        def attack(case: Any) -> None:
            answer = case.call(base_url=f"http://127.0.0.1:{server.port}", timeout=60)
            statuses[answer.status_code] += 1

        attack()
    return statuses


class Watch(threading.Thread):
    """The most memory that the web process and its worker have held, looked at every 50 ms."""

    def __init__(self, *pids: int) -> None:
        super().__init__(daemon=True)
        self._pids, self.most, self.done = pids, 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.05):
            with suppress(OSError):
                self.most = max(self.most, sum(map(resident_bytes, self._pids)))


def measure(server: Server, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Attack a running server, and count."""
    server.make(steps=1, frames=9, size="64x64")
    pids = server.pid, server.worker_pid()
    before, watch = sum(map(resident_bytes, pids)), Watch(*pids)
    watch.start()
    statuses = from_schema(server, 3 * count // 5, seed)
    slow = slow_heads(server, 10)
    own = attacks(folder, count - statuses.total() - len(slow), seed)
    for attack in own:
        statuses[send(server, attack)] += 1
    for job in server.call("GET", "/v1/videos?limit=100").json()["data"]:
        server.call("DELETE", f"/v1/videos/{job['id']}")
    done = server.make(steps=1, frames=9, size="64x64")
    watch.done.set()
    events = Counter(event["event"] for event in server.events())
    return {
        "requests": statuses.total() + len(slow),
        **{f"status {status or 'none, cut off'}": number for status, number in sorted(statuses.items())},
        "heads that never end, cut off": len(slow),
        "slowest of these, s": max(slow),
        "answers of 500 and above, but for 503": sum(
            n for status, n in statuses.items() if status >= 500 and status != 503
        ),
        "tracebacks in the log": events["request.broken"],
        "workers that died": events["worker.died"],
        "the same processes afterwards": pids == (server.pid, server.worker_pid()),
        "a video afterwards": done["status"],
        "memory before, MiB": before / 2**20,
        "most memory, MiB": watch.most / 2**20,
        "memory afterwards, MiB": sum(map(resident_bytes, pids)) / 2**20,
    }


def main() -> int:
    options = arguments(__doc__ or "", requests=500, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--queue", "30", "--jobs-per-key", "30", "--video-frames", "33", "--threads", "1"]
        server = Server(Path(folder) / "data", flags=flags).start()
        try:
            rows = measure(server, Path(folder), options.requests, options.seed)
        finally:
            server.stop()
    publish("hostile requests", rows, options.json)
    return int(rows["answers of 500 and above, but for 503"] + rows["tracebacks in the log"] > 0)


if __name__ == "__main__":
    sys.exit(main())
