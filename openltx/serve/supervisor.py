"""Keeps a worker alive, and the house tidy: a thread of the web process.

A worker that dies is replaced; its job waits again, or is given up if workers have died of it too often. A worker
without a sign of life is ended first. Every half minute what has expired is deleted.

Where servers share a store, each looks after the others too: jobs of a worker that has fallen silent wait again.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from openltx.errors import ServeError
from openltx.serve.files import VARIANTS, Files
from openltx.serve.log import happened
from openltx.serve.settings import ServerSettings
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Jobs, new_id
from openltx.serve.store.uploads import Uploads
from openltx.serve.store.workers import Workers

TICK_SECONDS = 0.1
TIDY_SECONDS = 30.0
RECOVER_SECONDS = 1.0
STOP_SECONDS = 30.0
"""How long a worker may take for its current step when the server stops."""
UNTOUCHED_SECONDS = 3600.0
"""How old a file that belongs to nothing must be to be deleted, where other servers may be making something of it."""
LONGEST_PAUSE = 30.0
"""Between two starts of a worker that dies at once."""
_UNMENDABLE = 2  # the worker's exit code for a model that cannot be loaded


class Supervisor:
    """Starts, watches and stops the worker; ``give_up`` is called if there can be none, and says why."""

    def __init__(
        self, settings: ServerSettings, database: Database, files: Files, give_up: Callable[[ServeError], None]
    ) -> None:
        self._settings = settings
        self._files = files
        self._jobs = Jobs(database, settings.limits)
        self._uploads = Uploads(database, settings.limits)
        self._workers = Workers(database)
        self._give_up = give_up
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor")
        self._process: subprocess.Popen | None = None
        self._worker_id = ""

    def start(self) -> None:
        """Clean up after the last server, and start the worker."""
        self._recover()
        self._find_losses()
        untouched = UNTOUCHED_SECONDS if self._settings.is_shared else 0.0
        for name in self._files.sweep(self._jobs.ids(), self._uploads.ids(), untouched):
            happened("file.swept", file=name)
        self._thread.start()

    def stop(self) -> None:
        """Tell the worker to hand its job back, and wait until it has gone."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        pause, tidied, recovered = 0.0, 0.0, time.monotonic()
        while not self._stopping.wait(TICK_SECONDS):
            if self._process is None:
                self._spawn()
            code = self._process.poll() if self._process else None
            if code is not None:
                lived = self._bury(code)
                if code == _UNMENDABLE:
                    break
                pause = 0.0 if lived > LONGEST_PAUSE else min(max(2 * pause, 0.25), LONGEST_PAUSE)
                self._stopping.wait(pause)
            elif self._is_hung():
                assert self._process is not None
                happened("worker.hung", worker=self._worker_id)
                self._process.kill()
            if time.monotonic() - tidied > TIDY_SECONDS:
                self._tidy()
                tidied = time.monotonic()
            if self._settings.is_shared and time.monotonic() - recovered > RECOVER_SECONDS:
                self._recover()
                recovered = time.monotonic()
        self._dismiss()

    def _spawn(self) -> None:
        self._worker_id = new_id("worker_")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "openltx.serve.worker", self._worker_id],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C does not reach it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the same openltx as here
        )
        self._say(self._settings.to_json())
        self._since = time.monotonic()
        happened("worker.started", worker=self._worker_id, pid=self._process.pid)

    def _bury(self, code: int) -> float:
        """Clean up after a worker that has died; gives the seconds that it lived."""
        reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        happened("worker.died", worker=self._worker_id, reason=reason)
        for job in self._jobs.release(self._worker_id, reason, crashed=True):
            happened("job.recovered", job=job.id, status=job.status, crashes=job.crashes)
        worker = self._workers.get(self._worker_id)
        if code == _UNMENDABLE and worker is not None:
            self._give_up(ServeError(worker.message))
        self._workers.remove(self._worker_id)
        self._hang_up()
        return time.monotonic() - self._since

    def _is_hung(self) -> bool:
        worker = self._workers.get(self._worker_id)
        latest = worker.beat_at if worker is not None else time.time() - (time.monotonic() - self._since)
        return time.time() - latest > self._settings.limits.hang_seconds

    def _dismiss(self) -> None:
        if self._process is None:
            return
        self._say("stop")
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._jobs.release(self._worker_id, "the server was stopped", crashed=False)
        self._workers.remove(self._worker_id)
        happened("worker.stopped", worker=self._worker_id)
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the pipe to a worker that has gone."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process = None

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; the next tick finds out
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _recover(self) -> None:
        """Let jobs wait again whose workers are gone: silent ones, or all that there were before the only server."""
        age = self._settings.limits.lost_seconds if self._settings.is_shared else 0.0
        for worker in self._workers.remove_silent(time.time() - age):
            happened("worker.lost", worker=worker)
        for job in self._jobs.release(None, "its server was ended", crashed=True):
            happened("job.recovered", job=job.id, status=job.status, crashes=job.crashes)

    def _tidy(self) -> None:
        now = time.time()
        for job_id in self._jobs.expire(now):
            self._files.discard_job(job_id)
            happened("job.expired", job=job_id)
        for upload_id in self._uploads.expire(now):
            self._files.discard_upload(upload_id)
            happened("upload.expired", upload=upload_id)

    def _find_losses(self) -> None:
        """Completed jobs whose files have vanished while no server ran."""
        for job_id in self._jobs.ids("completed"):
            if not all(self._files.content(job_id, variant).is_file() for variant in VARIANTS):
                self._jobs.lose(job_id)
                self._files.discard_job(job_id)
                happened("job.lost", job=job_id)
