"""The worker process: loads the model once, then makes one job after the other until it is told to stop.

Started by the supervisor as ``python -m openltx.serve.worker``, with the settings as a line of JSON on stdin. A second
line asks it to stop: it hands its job back to the queue after the current step. When stdin closes, the server is dead,
and so is the worker at once: a new server will run the job again, and two must not work on it.

Exit codes: 0 stopped, 2 the model cannot be loaded (the reason is in the store), anything else a crash.
"""

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from sqlalchemy.exc import OperationalError

from openltx.errors import OpenLTXError
from openltx.serve.files import Files
from openltx.serve.log import happened, log_as_json
from openltx.serve.making import DroppedError, Maker, StoppingError, is_like
from openltx.serve.settings import ServerSettings
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Job, Jobs
from openltx.serve.store.workers import ModelCard, Workers

IDLE_SECONDS = 0.1  # how often an idle worker looks for work
BEAT_SECONDS = 1.0


def main() -> int:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the server, which then tells the workers
    settings = ServerSettings.from_json(_next_line())
    worker_id = sys.argv[1]
    stopping = threading.Event()
    threading.Thread(target=_obey, args=(stopping,), daemon=True).start()
    log_as_json()
    database = Database(settings.database_url, durable=False)
    workers = Workers(database)
    workers.add(worker_id, os.getpid())
    threading.Thread(target=_beat, args=(workers, worker_id), daemon=True).start()
    try:
        make = _load(settings, workers, worker_id, database, stopping)
    except OpenLTXError as error:
        workers.failed(worker_id, str(error))
        return 2
    jobs = Jobs(database, settings.limits)
    while not stopping.is_set():
        batch = _next_batch(make, jobs, worker_id, settings.together)
        if not batch:
            stopping.wait(IDLE_SECONDS)
            continue
        _work(make, jobs, batch)
        _give_back_memory()
    workers.remove(worker_id)
    return 0


def _load(
    settings: ServerSettings, workers: Workers, worker_id: str, database: Database, stopping: threading.Event
) -> Maker:
    import torch

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    started = time.perf_counter()
    choice = settings.choose()
    generator = choice.open()
    for note in choice.notes:
        happened("worker.note", worker=worker_id, note=note)
    model = generator.model
    card = ModelCard(
        source=settings.source,
        name=model.name,
        fingerprint=model.fingerprint,
        sampling=model.sampling,
        loaded_at=time.time(),
    )
    workers.ready(worker_id, card)
    happened("worker.ready", worker=worker_id, model=model.name, seconds=round(time.perf_counter() - started, 3))
    return Maker(generator, Jobs(database, settings.limits), Files(settings.data), stopping.is_set)


def _next_batch(make: Maker, jobs: Jobs, worker_id: str, most: int) -> list[Job]:
    """The next job, and those right behind it that are sooner done together with it."""
    first = jobs.claim(worker_id)
    if first is None:
        return []
    batch, most = [first], min(most, make.most_together(first))
    while len(batch) < most and (another := jobs.claim(worker_id, partial(is_like, first))) is not None:
        batch.append(another)
    return batch


def _work(make: Maker, jobs: Jobs, batch: list[Job]) -> None:
    """Make one job or several together; whatever goes wrong ends the job, not the worker."""
    for job in batch:
        happened("job.started", job=job.id, attempt=job.attempt, together=len(batch))
    if len(batch) > 1:
        batch = make.together(batch, partial(_ending, make, jobs))
    for job in batch:
        with _ending(make, jobs, job):
            make(job)


@contextmanager
def _ending(make: Maker, jobs: Jobs, job: Job) -> Iterator[None]:
    """Around work on a job: what is raised ends the job or gives it back, and is dealt with."""
    import torch

    started = time.perf_counter()
    try:
        yield
    except DroppedError:
        happened("job.dropped", job=job.id, seconds=round(time.perf_counter() - started, 3))
    except StoppingError:
        jobs.release(job.worker, "the server was stopped", crashed=False)
        happened("job.released", job=job.id)
    except OpenLTXError as error:
        jobs.fail(job, "invalid_request", make.shown(job, error))
        happened("job.failed", job=job.id, code="invalid_request")
    except (MemoryError, torch.OutOfMemoryError):
        jobs.fail(job, "out_of_memory", "This video needs more memory than the server has. Ask for a smaller one.")
        happened("job.failed", job=job.id, code="out_of_memory")
    except OperationalError:  # the store is out of reach: somebody else will find the job unfinished
        raise
    except Exception:
        jobs.fail(job, "internal_error", "The server made a mistake. Its log says more about this job.")
        happened("job.failed", job=job.id, code="internal_error", exc_info=True)


def _obey(stopping: threading.Event) -> None:
    """Wait for the supervisor's word, or its death."""
    while _next_line():
        stopping.set()
    os._exit(1)


def _next_line() -> str:
    """The supervisor's next line, "" when it is dead. Unbuffered: Python cannot end while a thread holds a buffer."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line.decode()


def _beat(workers: Workers, worker_id: str) -> None:
    while True:
        with suppress(OperationalError):  # a busy store is no reason to die
            if not workers.beat(worker_id):  # taken for dead by another server: its job is somebody else's now
                os._exit(1)
        time.sleep(BEAT_SECONDS)


def _give_back_memory() -> None:
    """What the job needed goes back to the accelerator and to the system."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    sys.exit(main())
