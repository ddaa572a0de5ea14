"""A store in a folder of its own, and real servers as processes on a port of this machine."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("sqlalchemy")

from openltx.serve.settings import Limits, ServerSettings
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Job, Jobs, NewJob, new_id

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 300.0


@dataclass
class Answer:
    """What came back: status, headers with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The envelope, which must be there and whole."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "Traceback" not in error["message"]
        assert ".py" not in error["message"]
        return error


@dataclass
class Running:
    """A server process; ``events`` are the lines of its log."""

    data: Path
    process: subprocess.Popen
    events: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Collect the log until the process ends."""
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                is_event = line.startswith("{")
                self.events.append(json.loads(line) if is_event else {"event": "text", "line": line})

    def wait_for(self, event: str, after: int = 0, **fields: Any) -> dict[str, Any]:
        """The first such event of the log from line ``after`` on."""

        def found() -> dict[str, Any] | None:
            for line in self.events[after:]:
                if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                    return line
            assert self.process.poll() is None or event == "server.stopped", self.events
            return None

        return until(found)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, key: str | None = None
    ) -> Answer:
        """One request; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body, sent = json.dumps(body).encode(), {"Content-Type": "application/json", **sent}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def upload(self, content: bytes, filename: str = "x.png", kind: str = "image/png", **options: Any) -> Answer:
        """POST /v1/files."""
        body, content_type = form({"purpose": "vision"}, {"file": (filename, content, kind)})
        return self.call("POST", "/v1/files", body, {"Content-Type": content_type}, **options)

    def create(self, prompt: str = "a red ball", **fields: Any) -> dict[str, Any]:
        """POST /v1/videos, which must succeed."""
        answer = self.call("POST", "/v1/videos", {"prompt": prompt, **fields})
        assert answer.status == 200, answer.body
        return answer.json()

    def get(self, video: str) -> dict[str, Any]:
        answer = self.call("GET", f"/v1/videos/{video}")
        assert answer.status == 200, answer.body
        return answer.json()

    def finished(self, video: str) -> dict[str, Any]:
        """The job, once it has ended."""

        def ended() -> dict[str, Any] | None:
            job = self.get(video)
            return job if job["status"] not in ("queued", "in_progress") else None

        return until(ended)

    def running(self, video: str, step: int = 2) -> dict[str, Any]:
        """The job, once it is at this step."""

        def begun() -> dict[str, Any] | None:
            job = self.get(video)
            assert job["status"] in ("queued", "in_progress"), job
            return job if job["step"] >= step else None

        return until(begun)

    @staticmethod
    def until(look: Callable[[], Any]) -> Any:
        """What ``look`` finds, as soon as it finds something."""
        return until(look)

    @staticmethod
    def form(fields: dict[str, str], files: dict[str, tuple[str, bytes, str]]) -> tuple[bytes, str]:
        """A multipart body and its content type."""
        return form(fields, files)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        return code

    def worker_pid(self) -> int:
        return [line["pid"] for line in self.events if line["event"] == "worker.started"][-1]


def until(look: Callable[[], Any]) -> Any:
    """What ``look`` finds, as soon as it finds something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def form(fields: dict[str, str], files: dict[str, tuple[str, bytes, str]]) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items()
    ]
    for name, (filename, content, kind) in files.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        parts.append(f"{head}Content-Type: {kind}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join([*parts, f"--{mark}--\r\n".encode()]), f"multipart/form-data; boundary={mark}"


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def _start(tiny_checkpoint: Path) -> Iterator[Start]:
    started: list[Running] = []
    listeners: list[threading.Thread] = []

    def start(data: Path, *flags: str, ready: bool = True, port: int = 0) -> Running:
        where = ["--port", str(port), "--data", str(data)]
        line = ["serve", str(tiny_checkpoint), *where, "--device", "cpu", "--threads", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "openltx", *line, "--precision", "float32", *flags],
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        server = Running(data, process)
        started.append(server)
        listener = threading.Thread(target=server.listen, daemon=True)
        listener.start()
        listeners.append(listener)
        server.port = int(server.wait_for("server.started")["url"].rpartition(":")[2])
        if ready:
            server.wait_for("worker.ready")
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
    for listener in listeners:
        listener.join(PATIENCE)


@pytest.fixture(scope="session")
def start(_start: Start) -> Start:
    """Start a server of the tiny model on a free port: ``start(folder, *flags)``."""
    return _start


@pytest.fixture(scope="session")
def server(_start: Start, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """One server without keys, shared by all tests that leave it running."""
    return _start(tmp_path_factory.mktemp("server"))


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return ServerSettings(data=tmp_path)


@pytest.fixture
def database(settings: ServerSettings) -> Iterator[Database]:
    database = Database(settings.database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL of our own, on a free port of this machine, without a database's name."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    programs = folders[-1] if folders else Path(shutil.which("initdb") or "").parent
    if not (programs / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    somebody: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}  # it refuses root
    folder, secret = Path(tempfile.mkdtemp(prefix="openltx-postgres-")), uuid.uuid4().hex
    (folder / "secret").write_text(secret)
    if somebody:
        for path in (folder, folder / "secret"):
            shutil.chown(path, somebody["user"])
    how = ["-D", str(folder / "data"), "-U", "openltx", "-A", "scram-sha-256", "--pwfile", str(folder / "secret")]
    made = [str(programs / "initdb"), *how, "-E", "UTF8", "--locale", "C", "--no-sync"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=folder, **somebody)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    line = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(folder / "data"), *line], cwd=folder, stderr=log, **somebody
        )
    address = f"postgresql://openltx:{secret}@127.0.0.1:{port}"
    try:
        until(lambda: _connects(address))
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        shutil.rmtree(folder)


def _connects(address: str) -> bool | None:
    import psycopg

    try:
        psycopg.connect(f"{address}/postgres").close()
    except psycopg.OperationalError:
        return None
    return True


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """The address of an empty database on it."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{postgres}/{name}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database, Limits(queue=6, jobs_per_key=4))


@pytest.fixture
def enter() -> Callable[..., Job]:
    """Accept a small job: ``enter(jobs, owner, **fields of NewJob)``."""

    def accept(jobs: Jobs, owner: str = "ann", **fields: Any) -> Job:
        given = {"model": "tiny", "prompt": "a ball", "size": "64x32", "seconds": "1", "request": {"prompt": "a ball"}}
        job, _ = jobs.add(NewJob(owner=owner, **{**given, **fields}), new_id("video_"))
        return job

    return accept
