"""Accepted jobs under kill -9 of the whole server: each ends exactly once, with whole files, and nothing is left over.

    python -m benchmarks.serve_kills [--jobs 200] [--clients 20] [--kills 10] [--seed 1] [--json FILE]

Clients repeat a request with its Idempotency-Key until it is accepted, and then ask for their jobs until these have
ended. Kills come at random progress, and strike web process and worker together.
"""

import random
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serve_harness import Server, arguments, publish
from openltx.media.io import read_video

SMALL = {"steps": 4, "frames": 9, "size": "64x64"}
ENDED = ("completed", "failed", "cancelled")


@dataclass
class Clients:
    """What clients know: which job each of their requests became, how it ended, and how often they were put off."""

    server: Server
    accepted: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    refused: int = 0

    def work(self, tokens: list[str]) -> None:
        """One client: order all of its jobs, then wait for them."""
        for token in tokens:
            self.accepted[token] = self._order(token)
        for token in tokens:
            self.ended[self.accepted[token]] = self._end(self.accepted[token])

    def _order(self, token: str) -> str:
        body = {"prompt": token, **SMALL}
        while True:
            with suppress(OSError):  # it is down: nobody knows whether the job was accepted
                answer = self.server.call("POST", "/v1/videos", body, {"Idempotency-Key": token})
                if answer.status == 200:
                    return answer.json()["id"]
                assert answer.status in (429, 503), answer.body
                self.refused += 1
            time.sleep(0.1)

    def _end(self, video: str) -> str:
        while True:
            with suppress(OSError):
                status = self.server.call("GET", f"/v1/videos/{video}").json()["status"]
                if status in ENDED:
                    return status
            time.sleep(0.5)


def run(server: Server, *, jobs: int, clients: int, kills: int, seed: int) -> dict[str, Any]:
    """Do it on a server with an empty folder, and count."""
    chance, known = random.Random(seed), Clients(server)
    server.start()
    started = time.monotonic()
    tokens = [[f"client {number} job {index}" for index in range(number, jobs, clients)] for number in range(clients)]
    threads = [threading.Thread(target=known.work, args=(mine,)) for mine in tokens]
    for thread in threads:
        thread.start()
    for at in sorted(chance.uniform(0.02, 0.95) * jobs for _ in range(kills)):
        while _completed(server.data) < at:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        server.kill()
        server.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    listed, accepted = _listed(server), set(known.accepted.values())
    server.stop()
    completed = [video for video, status in known.ended.items() if status == "completed"]
    return {
        "jobs accepted": len(accepted),
        "jobs that the server lists": len(listed),
        "listed twice or lost": len(listed) - len(set(listed)) + len(accepted ^ set(listed)),
        "kills": kills,
        **_counts(server.data),
        "broken videos": sum(not _is_whole(server.data / "jobs" / video) for video in completed),
        "orphan files": len(_orphans(server.data, set(listed))),
        "answers 429 or 503": known.refused,
        "seconds": round(seconds, 1),
    }


def _completed(data: Path) -> int:
    with sqlite3.connect(f"file:{data / 'server.db'}?mode=ro", uri=True) as connection:
        (count,) = connection.execute("SELECT count(*) FROM jobs WHERE status = 'completed'").fetchone()
    connection.close()
    return count


def _listed(server: Server) -> list[str]:
    found: list[str] = []
    while True:
        after = f"&after={found[-1]}" if found else ""
        page = server.call("GET", f"/v1/videos?limit=100{after}").json()
        found += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            return found


def _counts(data: Path) -> dict[str, Any]:
    """What the database says: how jobs ended, how often each did, how often one was begun, and whether it is whole."""
    with sqlite3.connect(data / "server.db") as connection:
        status = dict(connection.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall())
        ends = "SELECT count(*) FROM events WHERE kind = 'status' AND json_extract(data, '$.status') IN (?, ?, ?)"
        each = f"SELECT ({ends} AND job = jobs.id) AS ends FROM jobs"
        once = connection.execute(f"SELECT count(*) FROM ({each}) WHERE ends = 1", ENDED).fetchone()[0]
        again = connection.execute("SELECT count(*) FROM jobs WHERE attempt > 1").fetchone()[0]
        (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return {
        **{f"jobs {name}": count for name, count in status.items()},
        "jobs that ended exactly once": once,
        "jobs that were begun again": again,
        "integrity_check": integrity,
    }


def _is_whole(folder: Path) -> bool:
    frames, _ = read_video(folder / "video.mp4")
    return len(frames) == SMALL["frames"] and all(
        (folder / name).stat().st_size > 0 for name in ("thumbnail.webp", "spritesheet.jpg")
    )


def _orphans(data: Path, jobs: set[str]) -> list[Path]:
    """Files and folders that belong to no job."""
    found = [path for name in ("scratch", "trash", "uploads") for path in (data / name).iterdir()]
    found += [path for path in (data / "jobs").iterdir() if path.name not in jobs]
    known = {"video.mp4", "thumbnail.webp", "spritesheet.jpg", "preview.jpg", "inputs"}
    return found + [path for path in (data / "jobs").glob("*/*") if path.name not in known]


def main() -> int:
    options = arguments(__doc__ or "", jobs=200, clients=20, kills=10, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--queue", "100000", "--jobs-per-key", "100000", "--threads", "1"]
        server = Server(Path(folder) / "data", flags=flags)
        rows = run(server, jobs=options.jobs, clients=options.clients, kills=options.kills, seed=options.seed)
    publish("kill -9 of the whole server", rows, options.json)
    wrong = rows["listed twice or lost"] + rows["broken videos"] + rows["orphan files"]
    return int(wrong > 0 or rows["jobs that ended exactly once"] != options.jobs or rows["integrity_check"] != "ok")


if __name__ == "__main__":
    sys.exit(main())
