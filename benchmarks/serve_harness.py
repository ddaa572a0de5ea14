"""A server under measurement: started as a process of its own, asked over HTTP, killed and started again."""

import argparse
import datetime
import http.client
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PATIENCE = 300.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """``openltx serve`` on one port of this machine, with its log in ``data``.log."""

    data: Path
    model: str = "playroom"
    flags: Sequence[str] = ()
    port: int = 0
    process: subprocess.Popen | None = field(default=None, init=False)

    def start(self) -> "Server":
        """Start it, and wait until its worker is ready."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.port = listener.getsockname()[1]
        line = ["serve", self.model, "--port", str(self.port), "--data", str(self.data), *self.flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "openltx", *line], stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)
        return self

    @property
    def log(self) -> Path:
        return self.data.with_suffix(".log")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def worker_pid(self) -> int:
        """The worker's process, as the log last named it."""
        return [event["pid"] for event in self.events() if event["event"] == "worker.started"][-1]

    def events(self) -> list[dict[str, Any]]:
        """The lines of the log that are whole."""
        lines = self.log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def kill(self) -> None:
        """SIGKILL to the server and to its worker."""
        for pid in (self.pid, self.worker_pid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(PATIENCE)

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own; a body that is not bytes is sent as JSON. Raises ``OSError``."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body, sent = json.dumps(body).encode(), {"Content-Type": "application/json", **sent}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def make(self, **fields: Any) -> dict[str, Any]:
        """Order a video and wait for it."""
        job = self.call("POST", "/v1/videos", {"prompt": "a red ball rolls to the left", **fields}).json()
        return self.wait_for(job["id"])

    def wait_for(self, video: str, pause: float = 0.05) -> dict[str, Any]:
        """The job, once it has ended."""
        while (job := self.call("GET", f"/v1/videos/{video}").json())["status"] in ("queued", "in_progress"):
            time.sleep(pause)
        return job

    def _is_ready(self) -> bool:
        try:
            return self.call("GET", "/readyz").status == 200
        except OSError:
            return False


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """Memory that a process holds, without pages of files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def arguments(doc: str, **defaults: int) -> argparse.Namespace:
    """The command line: whole numbers with these defaults, and --json FILE."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measured(title: str, doc: str, measure: Callable[..., Mapping[str, Any]], **defaults: int) -> int:
    """A whole benchmark: ``measure(server, **options)`` on a server that lives as long, published; 0."""
    options = vars(arguments(doc, **defaults))
    place = options.pop("json")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start()
        try:
            rows = measure(server, **options)
        finally:
            server.stop()
    publish(title, rows, place)
    return 0


def publish(title: str, rows: Mapping[str, Any], place: Path | None) -> None:
    """Print the rows as a table, and write them as JSON if there is a place for them."""
    machine = f"{os.cpu_count()} cores of {platform.machine()}, Linux {platform.release()}"
    table = Table("measured", "value", title=f"{title} ({machine})", title_justify="left")
    for name, value in rows.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if place is not None:
        found = {"date": datetime.date.today().isoformat(), "machine": machine, "title": title, **rows}
        place.write_text(json.dumps(found, indent=1) + "\n")
