"""Everything is killed in mid-job: each accepted job ends once, its files are whole, and nothing is left over."""

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

from benchmarks.serve_harness import Server
from benchmarks.serve_kills import run
from openltx.media.io import read_video

SLOW = {"steps": 200, "size": "256x256", "frames": 33}


def leftovers(data: Path, videos: set[str]) -> list[str]:
    """What is in the folder and belongs to no job; integrity of the database is checked on the way."""
    with sqlite3.connect(data / "server.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    found = [path.name for name in ("scratch", "trash", "uploads") for path in (data / name).iterdir()]
    found += [path.name for path in (data / "jobs").iterdir() if path.name not in videos]
    return found + [str(path) for path in data.rglob("*.tmp")]


def test_a_killed_worker_is_replaced_and_its_job_runs_again_until_it_has_killed_three(server: Any) -> None:
    job, other = server.create(**SLOW), server.create(steps=1)
    for attempt in (1, 2, 3):
        assert server.running(job["id"])["attempt"] == attempt
        mark = len(server.events)
        os.kill(server.worker_pid(), signal.SIGKILL)
        assert server.get(job["id"])["id"] == job["id"]  # the web process has noticed nothing
        assert server.wait_for("worker.died", after=mark)["reason"] == "killed by signal 9"
        server.wait_for("job.recovered", after=mark, job=job["id"])
    done = server.finished(job["id"])
    assert (done["status"], done["error"]["code"]) == ("failed", "worker_crashed")
    assert "killed by signal 9" in done["error"]["message"]
    assert server.finished(other["id"])["status"] == "completed"
    assert server.call("GET", "/readyz").status == 200


def test_a_server_killed_twice_in_mid_job_loses_and_doubles_nothing(start: Any, tmp_path: Path) -> None:
    server = start(tmp_path)
    done = server.finished(server.create(steps=1)["id"])
    lost = server.finished(server.create(steps=1)["id"])
    made = [server.create("first", **{**SLOW, "steps": 60}), server.create("second", steps=2)]
    token = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    third = server.call("POST", "/v1/videos", b'{"prompt": "third", "steps": 2}', token).json()
    server.running(made[0]["id"])
    worker = server.worker_pid()
    server.stop(signal.SIGKILL)
    server.until(lambda: None if _lives(worker) else True)  # it follows its server at once

    (tmp_path / "jobs" / lost["id"] / "video.mp4").unlink()
    (tmp_path / "jobs" / "video_of_nobody").mkdir()
    (tmp_path / "scratch" / "half").mkdir()
    (tmp_path / "uploads" / "file-of-nobody.png").write_bytes(b"x")

    server = start(tmp_path)
    assert server.get(made[0]["id"])["status"] in ("queued", "in_progress")
    again = server.call("POST", "/v1/videos", b'{"prompt": "third", "steps": 2}', token).json()
    assert again["id"] == third["id"]
    for job in (*made, third):
        assert server.finished(job["id"])["status"] == "completed"
    assert server.get(made[0]["id"])["attempt"] == 2
    assert server.get(done["id"])["status"] == "completed"
    gone = server.get(lost["id"])
    assert (gone["status"], gone["error"]["code"]) == ("failed", "files_lost")
    videos = {job["id"] for job in (done, lost, *made, third)}
    listed = [job["id"] for job in server.call("GET", "/v1/videos?limit=100").json()["data"]]
    assert sorted(listed) == sorted(videos)
    for job in (done, *made, third):
        assert len(read_video(tmp_path / "jobs" / job["id"] / "video.mp4")[0])
    assert leftovers(tmp_path, videos) == []

    running = server.create(**SLOW)
    server.running(running["id"])
    assert server.stop(signal.SIGTERM) == 0
    assert server.wait_for("job.released")["job"] == running["id"]
    assert server.events[-1]["event"] == "server.stopped"
    with sqlite3.connect(tmp_path / "server.db") as connection:
        row = connection.execute("SELECT status, crashes FROM jobs WHERE id = ?", (running["id"],)).fetchone()
    connection.close()
    assert row == ("queued", 0)  # it waits for the next start
    assert leftovers(tmp_path, {*videos, running["id"]}) == []


def test_jobs_of_many_clients_end_once_though_the_server_is_killed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    flags = ["--queue", "100", "--device", "cpu", "--precision", "float32", "--threads", "1"]
    found = run(Server(tmp_path / "data", str(tiny_checkpoint), flags), jobs=9, clients=3, kills=1, seed=1)
    assert found["jobs that ended exactly once"] == found["jobs completed"] == found["jobs accepted"] == 9
    assert (found["listed twice or lost"], found["broken videos"], found["orphan files"]) == (0, 0, 0)
    assert found["integrity_check"] == "ok"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/status").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text()
