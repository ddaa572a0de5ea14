"""Workers, their signs of life, and what they found out about the model."""

import time
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, insert, select, update

from openltx.pipelines.request import Sampling, as_tuples
from openltx.serve.store.database import Database, upsert
from openltx.serve.store.tables import models, workers

State = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker process; ``beat_at`` is its latest sign of life."""

    id: str
    pid: int
    state: State
    message: str
    started_at: float
    beat_at: float


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the web process needs of a model; ``source`` is what the server was told, ``name`` what clients say."""

    source: str
    name: str
    fingerprint: str
    sampling: dict[str, Any]
    loaded_at: float

    @property
    def defaults(self) -> Sampling:
        """How the model is sampled where a request leaves it open."""
        return Sampling(**as_tuples(self.sampling))


class Workers:
    """The workers of a server."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, worker_id: str, pid: int) -> None:
        """A worker has started, and loads its model."""
        now = time.time()
        row = {"id": worker_id, "pid": pid, "state": "loading", "message": "", "started_at": now, "beat_at": now}
        with self._database.write() as connection:
            connection.execute(insert(workers).values(**row))

    def ready(self, worker_id: str, card: ModelCard) -> None:
        """The model is loaded."""
        with self._database.write() as connection:
            upsert(connection, models, vars(card), vars(card))
            connection.execute(update(workers).where(workers.c.id == worker_id).values(state="ready"))

    def failed(self, worker_id: str, message: str) -> None:
        """The model cannot be loaded, for a reason that trying again does not mend."""
        with self._database.write() as connection:
            values = {"state": "failed", "message": message}
            connection.execute(update(workers).where(workers.c.id == worker_id).values(**values))

    def beat(self, worker_id: str) -> bool:
        """A sign of life; False if the worker has been taken for dead already."""
        with self._database.write() as connection:
            changed = update(workers).where(workers.c.id == worker_id).values(beat_at=time.time())
            return connection.execute(changed).rowcount > 0

    def get(self, worker_id: str) -> Worker | None:
        with self._database.read() as connection:
            row = connection.execute(select(workers).where(workers.c.id == worker_id)).first()
        return None if row is None else Worker(**row._mapping)

    def all(self) -> list[Worker]:
        with self._database.read() as connection:
            return [Worker(**row._mapping) for row in connection.execute(select(workers))]

    def remove(self, worker_id: str) -> None:
        """A worker is gone."""
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.id == worker_id))

    def remove_silent(self, since: float) -> list[str]:
        """Take for dead who gave no sign of life ``since`` then, and say who."""
        silent = workers.c.beat_at < since
        with self._database.write() as connection:
            gone = list(connection.scalars(select(workers.c.id).where(silent)))
            connection.execute(delete(workers).where(workers.c.id.in_(gone) & silent))
            return gone

    def model(self, source: str) -> ModelCard | None:
        """The model that is served from this source, if a worker has ever loaded it."""
        with self._database.read() as connection:
            row = connection.execute(select(models).where(models.c.source == source)).first()
        return None if row is None else ModelCard(**row._mapping)
