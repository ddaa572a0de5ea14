"""Jobs: accepted, claimed, reported on, ended. Each public method is one transaction.

    queued ---claim---> in_progress ---finish---> completed ---expire---> expired
       ^                    |  |-------fail-----> failed
       |------release-------|  |-------cancel---> cancelled

A claim counts ``attempt`` up, and every later write names it. So a worker that has lost its job (cancelled, deleted, or
claimed again after it was taken for dead) finds out at its next step, and can never end a job twice.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Row,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from openltx.errors import ServeError
from openltx.serve.settings import Limits
from openltx.serve.store.database import Database
from openltx.serve.store.tables import events, idempotency, jobs, uploads, workers
from openltx.serve.store.totals import add_to

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
Stage = Literal["queued", "prepare", "sample", "decode", "write", "done"]
STATUSES: tuple[str, ...] = get_args(Status)
UNFINISHED = ("queued", "in_progress")


class QueueFullError(ServeError):
    """No more work is taken now; ``retry_after`` says in how many seconds to ask again."""

    def __init__(self, message: str, code: str, retry_after: int) -> None:
        super().__init__(message)
        self.code, self.retry_after = code, retry_after


class TokenReusedError(ServeError):
    """An Idempotency-Key that came before with another request."""


@dataclass(frozen=True, kw_only=True)
class Extends:
    """What a job continues: the file of this identifier, of which the last ``overlap`` of ``frames`` are given to it.

    The result is all of these frames, and what was made behind them.
    """

    file: str
    frames: int
    overlap: int


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a client asks for, checked."""

    owner: str
    model: str
    prompt: str
    size: str
    seconds: str
    request: Mapping[str, Any]
    key_priority: int = 0
    priority: int = 0
    remixed_from: str | None = None
    extends: Mapping[str, Any] | None = None
    """An ``Extends``, as JSON."""
    bytes: int = 0
    """Disk space of what it was given."""
    token: str | None = None
    """The client's Idempotency-Key."""
    digest: str = ""
    """A hash of the whole request, to tell a repetition from another request with the same key."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it is stored; see ``tables.jobs``."""

    number: int
    id: str
    owner: str
    status: Status
    key_priority: int
    priority: int
    model: str
    prompt: str
    size: str
    seconds: str
    request: dict[str, Any]
    resolved: dict[str, Any] | None
    remixed_from: str | None
    extends: dict[str, Any] | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    stage: Stage
    step: int
    steps: int
    progress: int
    stages: dict[str, float]
    bytes: int
    worker: str | None
    attempt: int
    crashes: int
    error_code: str | None
    error_message: str | None

    @property
    def continues(self) -> Extends | None:
        """What it continues."""
        return None if self.extends is None else Extends(**self.extends)

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job; ``kind`` is status, progress, preview or log."""

    number: int
    at: float
    kind: str
    data: dict[str, Any]


_FIELDS = [field.name for field in fields(Job)]
_COLUMNS = [jobs.c[name] for name in _FIELDS]

# What is asked all the time, built once: building takes longer than reading.
_OWNED = select(*_COLUMNS).where(jobs.c.owner == bindparam("owner"))
_GET = _OWNED.where(jobs.c.id == bindparam("id"))
_PAGE = _OWNED.limit(bindparam("limit", type_=Integer))
_PAGE_UP = _PAGE.where(jobs.c.number > bindparam("place")).order_by(jobs.c.number.asc())
_PAGE_DOWN = _PAGE.where(jobs.c.number < bindparam("place", type_=BigInteger)).order_by(jobs.c.number.desc())
_EVENTS = (
    select(events.c.number, events.c.at, events.c.kind, events.c.data)
    .where((events.c.job == bindparam("job")) & (events.c.number > bindparam("after")))
    .order_by(events.c.number)
)


def new_id(kind: str) -> str:
    """An identifier that cannot be guessed: ``video_`` or ``file-`` and 32 hexadecimal digits."""
    return f"{kind}{uuid4().hex}"


class Jobs:
    """The queue and the record of everything that went through it."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    def add(self, new: NewJob, job_id: str) -> tuple[Job, bool]:
        """Accept a job, or find the one that the same Idempotency-Key made before; True if it is new.

        Raises ``QueueFullError``, and ``TokenReusedError`` if the key came with another request.
        """
        with self._database.write(alone=True) as connection:
            if new.token is not None:
                known = _repeated(connection, new.owner, new.token, new.digest)
                if known is not None:
                    return known, False
            self._require_room(connection, new.owner)
            values = {
                "id": job_id,
                "status": "queued",
                "created_at": time.time(),
                "stage": "queued",
                "step": 0,
                "steps": 0,
                "progress": 0,
                "stages": {},
                "attempt": 0,
                "crashes": 0,
                **{field.name: getattr(new, field.name) for field in fields(new) if field.name not in _NOT_STORED},
            }
            connection.execute(insert(jobs).values(**values))
            if new.token is not None:
                row = {"owner": new.owner, "token": new.token, "digest": new.digest, "job": job_id}
                connection.execute(insert(idempotency).values(**row, created_at=time.time()))
            _happened(connection, job_id, "status", {"status": "queued"})
            add_to(connection, "jobs_accepted", "")
            return _one(connection, jobs.c.id == job_id), True

    def repeated(self, owner: str, token: str, digest: str) -> Job | None:
        """The job that the same Idempotency-Key made before; raises ``TokenReusedError``."""
        with self._database.read() as connection:
            return _repeated(connection, owner, token, digest)

    def get(self, owner: str, job_id: str) -> Job | None:
        """A job of this owner."""
        with self._database.read() as connection:
            row = connection.execute(_GET, {"id": job_id, "owner": owner}).first()
        return None if row is None else _job(row)

    def page(
        self, owner: str, *, after: str | None = None, limit: int = 20, ascending: bool = False
    ) -> tuple[list[Job], bool] | None:
        """Jobs of this owner in order of arrival behind the job ``after``, and whether there are more.

        None if ``after`` is no job of theirs.
        """
        place = 0 if ascending else 2**62
        with self._database.read() as connection:
            if after is not None:
                mine = (jobs.c.owner == owner) & (jobs.c.id == after)
                place = connection.scalar(select(jobs.c.number).where(mine))
                if place is None:
                    return None
            wanted = {"owner": owner, "place": place, "limit": limit + 1}
            rows = connection.execute(_PAGE_UP if ascending else _PAGE_DOWN, wanted).all()
        return [_job(row) for row in rows[:limit]], len(rows) > limit

    def latest(self, model: str, count: int) -> list[Job]:
        """The latest completed jobs of a model, whoever's they are."""
        done = (jobs.c.status == "completed") & (jobs.c.model == model)
        chosen = select(*_COLUMNS).where(done).order_by(jobs.c.number.desc()).limit(count)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(chosen)]

    def waiting(self) -> tuple[int, float | None]:
        """How many jobs wait or run, and the mean seconds of one of the latest; None if none has been completed."""
        with self._database.read() as connection:
            unfinished = select(func.count()).where(jobs.c.status.in_(UNFINISHED))
            return connection.scalar(unfinished) or 0, _mean_seconds(connection)

    def ahead_of(self, job: Job) -> int:
        """How many waiting jobs came before a waiting one."""
        waiting = (jobs.c.status == "queued") & (jobs.c.number < job.number)
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).where(waiting)) or 0

    def claim(self, worker: str, wanted: Callable[[Job], bool] | None = None) -> Job | None:
        """Take the next job: the highest priority of a key, then the owner who was served longest ago, then in turn.

        None if nothing waits, or if the next one is not ``wanted``.
        """
        with self._database.read() as connection:  # an idle worker does not keep others from writing
            if connection.scalar(select(jobs.c.number).where(jobs.c.status == "queued").limit(1)) is None:
                return None
        earlier = jobs.alias("earlier")
        served = select(func.max(earlier.c.started_at)).where(earlier.c.owner == jobs.c.owner).scalar_subquery()
        order = (jobs.c.key_priority.desc(), func.coalesce(served, 0), jobs.c.priority.desc(), jobs.c.number)
        with self._database.write() as connection:
            chosen = select(*_COLUMNS).where(jobs.c.status == "queued").order_by(*order).limit(1)
            row = connection.execute(chosen.with_for_update(of=jobs, skip_locked=True)).first()
            if row is None or (wanted is not None and not wanted(_job(row))):
                return None
            job_id = row.id
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id)
                .values(
                    status="in_progress",
                    stage="prepare",
                    worker=worker,
                    attempt=jobs.c.attempt + 1,
                    started_at=time.time(),
                    step=0,
                    progress=0,
                )
            )
            job = _one(connection, jobs.c.id == job_id)
            _happened(connection, job_id, "status", {"status": "in_progress", "attempt": job.attempt})
            return job

    def report(self, job: Job, *, stage: Stage, step: int = 0, steps: int = 0, progress: int = 0) -> bool:
        """Record how far a job is; False if it is not this claim's any more, and the work is to be dropped."""
        news = {"stage": stage, "step": step, "steps": steps, "progress": progress}
        return self._write(job, news, "progress", news)

    def note(self, job: Job, kind: Literal["preview", "log"], data: Mapping[str, Any]) -> bool:
        """Add an event; False as in ``report``."""
        return self._write(job, {}, kind, data)

    def finish(
        self, job: Job, *, resolved: Mapping[str, Any], stages: Mapping[str, float], size: str, bytes: int
    ) -> bool:
        """The video and its pictures are in place; False if the job is not this claim's any more."""
        values = {"resolved": dict(resolved), "stages": dict(stages), "size": size, "bytes": bytes, "progress": 100}
        return self._end(job, "completed", {**values, "stage": "done"}, stages)

    def fail(self, job: Job, code: str, message: str) -> bool:
        """The job cannot be done; False if it is not this claim's any more."""
        return self._end(job, "failed", {"error_code": code, "error_message": message}, {})

    def release(self, worker: str | None, reason: str, *, crashed: bool) -> list[Job]:
        """Let go of the jobs of a worker (None: of all that are gone), and give them as they are now.

        They wait again, in their old place. After a crash that is counted, and one crash too many ends the job.
        """
        with self._database.write() as connection:
            gone = jobs.c.worker.not_in(select(workers.c.id)) if worker is None else jobs.c.worker == worker
            held = (jobs.c.status == "in_progress") & gone
            rows = connection.execute(select(*_COLUMNS).where(held).with_for_update()).all()
            for job in map(_job, rows):
                crashes = job.crashes + crashed
                values: dict[str, Any] = {"status": "queued", "stage": "queued", "step": 0, "progress": 0}
                if crashes >= self._limits.crashes:
                    message = f"The worker died {crashes} times while it made this video; the last time: {reason}."
                    values = self._ended("failed", {"error_code": "worker_crashed", "error_message": message})
                    add_to(connection, "jobs_finished", "failed")
                connection.execute(
                    update(jobs).where(jobs.c.id == job.id).values(**values, worker=None, crashes=crashes)
                )
                _happened(connection, job.id, "status", {"status": values["status"], "reason": reason})
            return [_one(connection, jobs.c.id == row.id) for row in rows]

    def cancel(self, owner: str, job_id: str) -> Job | None:
        """Stop a job that waits or runs; one that has ended stays as it is. None if there is no such job."""
        with self._database.write() as connection:
            mine = (jobs.c.id == job_id) & (jobs.c.owner == owner)
            values = self._ended("cancelled", {})
            if connection.execute(update(jobs).where(mine & jobs.c.status.in_(UNFINISHED)).values(**values)).rowcount:
                _happened(connection, job_id, "status", {"status": "cancelled"})
                add_to(connection, "jobs_finished", "cancelled")
            return _find(connection, mine)

    def delete(self, owner: str, job_id: str) -> bool:
        """Forget a job; one that runs stops at its next step. False if there is no such job."""
        with self._database.write() as connection:
            mine = (jobs.c.id == job_id) & (jobs.c.owner == owner)
            status = connection.scalar(select(jobs.c.status).where(mine))
            if status in UNFINISHED:
                add_to(connection, "jobs_finished", "cancelled")
            return connection.execute(delete(jobs).where(mine)).rowcount > 0

    def lose(self, job_id: str) -> None:
        """A completed job's files have vanished: say so."""
        message = "The files of this video have vanished from the server's disk. Make it again."
        with self._database.write() as connection:
            values = {"status": "failed", "error_code": "files_lost", "error_message": message, "bytes": 0}
            lost = (jobs.c.id == job_id) & (jobs.c.status == "completed")
            if connection.execute(update(jobs).where(lost).values(**values)).rowcount:
                _happened(connection, job_id, "status", {"status": "failed", "reason": "files lost"})

    def expire(self, now: float) -> list[str]:
        """End the time of finished jobs: those whose files are to go now. Long expired ones are forgotten."""
        with self._database.write() as connection:
            due = jobs.c.status.in_(("completed", "failed", "cancelled")) & (jobs.c.expires_at <= now)
            ids = list(connection.scalars(select(jobs.c.id).where(due).with_for_update(skip_locked=True)))
            connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(status="expired", bytes=0))
            for job_id in ids:
                _happened(connection, job_id, "status", {"status": "expired"})
            old = (jobs.c.status == "expired") & (jobs.c.expires_at <= now - self._limits.forget_seconds)
            connection.execute(delete(jobs).where(old))
            connection.execute(delete(idempotency).where(idempotency.c.created_at <= now - _TOKEN_SECONDS))
            return ids

    def ids(self, *statuses: Status) -> set[str]:
        """The identifiers of all jobs in these states (without any: of all)."""
        chosen = select(jobs.c.id).where(jobs.c.status.in_(statuses)) if statuses else select(jobs.c.id)
        with self._database.read() as connection:
            return set(connection.scalars(chosen))

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        with self._database.read() as connection:
            rows = connection.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status)).all()
        return dict.fromkeys(STATUSES, 0) | {row[0]: row[1] for row in rows}

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """What happened to a job since the event ``after``."""
        with self._database.read() as connection:
            return [Event(**row._mapping) for row in connection.execute(_EVENTS, {"job": job_id, "after": after})]

    def _require_room(self, connection: Connection, owner: str) -> None:
        waiting = jobs.c.status.in_(UNFINISHED)
        total = connection.scalar(select(func.count()).where(waiting)) or 0
        own = connection.scalar(select(func.count()).where(waiting & (jobs.c.owner == owner))) or 0
        for count, limit, whose, code in (
            (total, self._limits.queue, "The queue is full", "queue_full"),
            (own, self._limits.jobs_per_key, "You have as many jobs as one key may have", "too_many_jobs"),
        ):
            if count >= limit:
                message = f"{whose}: {count} wait or run. Try again later, or cancel one."
                raise QueueFullError(message, code, _seconds_for_one(connection))
        if bytes_used(connection) >= self._limits.disk_bytes:
            message = "The disk space that this server may use is full. Delete videos or uploads that you do not need."
            raise QueueFullError(message, "disk_quota_exceeded", 60)

    def _write(self, job: Job, values: Mapping[str, Any], kind: str, data: Mapping[str, Any]) -> bool:
        with self._database.write() as connection:
            changed = update(jobs).where(_held(job)).values(**(values or {"attempt": job.attempt}))
            if not connection.execute(changed).rowcount:
                return False
            _happened(connection, job.id, kind, data)
            return True

    def _end(self, job: Job, status: Status, values: Mapping[str, Any], stages: Mapping[str, float]) -> bool:
        with self._database.write() as connection:
            changed = update(jobs).where(_held(job)).values(**self._ended(status, values))
            if not connection.execute(changed).rowcount:
                return False
            reason = {"code": values["error_code"]} if "error_code" in values else {}
            _happened(connection, job.id, "status", {"status": status, **reason})
            add_to(connection, "jobs_finished", status)
            for stage, seconds in stages.items():
                add_to(connection, "stage_seconds", stage, seconds)
            return True

    def _ended(self, status: Status, values: Mapping[str, Any]) -> dict[str, Any]:
        now = time.time()
        return {"status": status, "finished_at": now, "expires_at": now + self._limits.keep_seconds, **values}


def bytes_used(connection: Connection) -> int:
    """The disk space of all results and uploads."""
    totals = (connection.scalar(select(func.coalesce(func.sum(table.c.bytes), 0))) for table in (jobs, uploads))
    return sum(int(total or 0) for total in totals)


def _held(job: Job) -> ColumnElement[bool]:
    """Whether the job is still this claim's."""
    return (jobs.c.id == job.id) & (jobs.c.attempt == job.attempt) & (jobs.c.status == "in_progress")


def _repeated(connection: Connection, owner: str, token: str, digest: str) -> Job | None:
    mine = (idempotency.c.owner == owner) & (idempotency.c.token == token)
    row = connection.execute(select(idempotency.c.job, idempotency.c.digest).where(mine)).first()
    if row is None:
        return None
    if row.digest != digest:
        raise TokenReusedError(
            "This Idempotency-Key came before with another request. Use a new key for a new request, and the same one "
            "only to repeat a request that may have been lost."
        )
    return _one(connection, jobs.c.id == row.job)


def _seconds_for_one(connection: Connection) -> int:
    """How long one of the latest jobs took, as a whole number of seconds from 1 to 60."""
    return min(max(round(_mean_seconds(connection) or 5), 1), 60)


def _mean_seconds(connection: Connection) -> float | None:
    took = (jobs.c.finished_at - jobs.c.started_at).label("took")
    latest = select(took).where(jobs.c.status == "completed").order_by(jobs.c.number.desc()).limit(10).subquery()
    return connection.scalar(select(func.avg(latest.c.took)))


def _happened(connection: Connection, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
    connection.execute(insert(events).values(job=job_id, at=time.time(), kind=kind, data=dict(data)))


def _find(connection: Connection, where: ColumnElement[bool]) -> Job | None:
    row = connection.execute(select(*_COLUMNS).where(where)).first()
    return None if row is None else _job(row)


def _one(connection: Connection, where: ColumnElement[bool]) -> Job:
    job = _find(connection, where)
    assert job is not None
    return job


def _job(row: Row) -> Job:
    return Job(**dict(zip(_FIELDS, row, strict=True)))


_TOKEN_SECONDS = 86400.0
_NOT_STORED: Sequence[str] = ("token", "digest")
