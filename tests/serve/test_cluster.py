"""Ray Serve: two replicas on one PostgreSQL and one folder; one of them is killed in mid-job."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from openltx.media.io import read_video
from openltx.serve.cluster import replicas_for_queue
from openltx.serve.settings import Limits
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Jobs
from openltx.serve.store.workers import Workers

REPOSITORY = Path(__file__).parents[2]


def until(look: Any, patience: float = 240.0) -> Any:
    deadline = time.monotonic() + patience
    while (found := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def call(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if "json" in (answer.getheader("content-type") or "") else content
    except OSError:
        return 0, None
    finally:
        connection.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_all_jobs_end_once_though_a_replica_is_killed(tiny_checkpoint: Path, postgres_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    flags = [
        "--ray",
        "--replicas",
        "2",
        "--database",
        postgres_url,
        "--data",
        str(tmp_path / "data"),
        "--port",
        str(port),
    ]
    small = ["--device", "cpu", "--precision", "float32", "--threads", "1", "--lost-seconds", "10"]
    session = tempfile.mkdtemp(prefix="ray-")  # its sockets must have short names
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "openltx", "serve", str(tiny_checkpoint), *flags, *small],
            stderr=log,
            stdout=log,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": session},
        )
    store = Database(postgres_url)
    workers, jobs = Workers(store), Jobs(store, Limits())
    try:
        until(lambda: True if len(_ready(workers, process)) == 2 else None)
        until(lambda: True if call(port, "GET", "/readyz")[0] == 200 else None)
        made = []
        for number in range(6):
            fields = {"prompt": f"ball {number}", "steps": 120 if number < 2 else 2, "size": "128x128", "frames": 17}
            status, job = call(port, "POST", "/v1/videos", fields)
            assert status == 200, job
            made.append(job["id"])
        held = until(lambda: next((job for job in map(_of(jobs), made) if job.step >= 2), None))
        worker = workers.get(held.worker)
        assert worker is not None
        os.kill(parent(worker.pid), signal.SIGKILL)
        done = [until(lambda job=job: found if (found := _of(jobs)(job)).is_finished else None) for job in made]
        assert [(job.status, job.error_message) for job in done] == [("completed", None)] * 6
        assert _of(jobs)(held.id).attempt == 2
        for job in made:
            ends = [event for event in jobs.events(job) if event.data.get("status") in ("completed", "failed")]
            assert len(ends) == 1
            assert len(read_video(tmp_path / "data" / "jobs" / job / "video.mp4")[0]) == 17
            assert call(port, "GET", f"/v1/videos/{job}/content")[0] == 200
    finally:
        store.close()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(session)


def test_a_replica_for_each_unfinished_job() -> None:
    reported = SimpleNamespace(aggregated_metrics={"unfinished": {"replica 1": 4.0, "replica 2": 3.0}})
    assert replicas_for_queue(reported)[0] == 4
    assert replicas_for_queue(SimpleNamespace(aggregated_metrics={}))[0] == 1


def _of(jobs: Jobs) -> Any:
    def get(video: str) -> Any:
        job = jobs.get("", video)
        assert job is not None
        return job

    return get


def _ready(workers: Workers, process: subprocess.Popen) -> list[str]:
    assert process.poll() is None
    try:
        return [worker.id for worker in workers.all() if worker.state == "ready"]
    except Exception:
        return []
