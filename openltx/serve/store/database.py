"""The database: opened, brought up to date, and its two kinds of transaction.

SQLite runs in WAL mode: readers never wait, and a commit survives the death of the process. ``durable`` makes it
survive a power cut too, for one flush to the disk a commit; the web process accepts work that way. A worker does
without: what it loses runs again. SQLite's writers take the lock when they begin, so no transaction fails half way
for want of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event, select
from sqlalchemy.exc import DatabaseError

from openltx.errors import ServeError
from openltx.serve.store.tables import MIGRATIONS, metadata, schema

BUSY_SECONDS = 20
"""How long a writer waits for another one."""


class Database:
    """A store at an address of SQLAlchemy's, for example "sqlite:////data/server.db"."""

    def __init__(self, url: str, *, durable: bool = True) -> None:
        self._engine = create_engine(url, pool_size=40, max_overflow=-1)
        if self._engine.dialect.name == "sqlite":
            self._set_up_sqlite(durable)

    def migrate(self) -> None:
        """Create the tables or bring them up to date; raises ``ServeError`` for a newer or damaged database."""
        try:
            with self.write() as connection:
                schema.create(connection, checkfirst=True)
                version = connection.scalar(select(schema.c.version))
                if version is None:
                    metadata.create_all(connection)
                    connection.execute(schema.insert().values(version=len(MIGRATIONS)))
                    return
                if version > len(MIGRATIONS):
                    raise ServeError(
                        f"The database {self._engine.url.database} was made by a newer openltx (schema {version}, this "
                        f"one knows {len(MIGRATIONS)}). Use that version, or another --data folder."
                    )
                for change in MIGRATIONS[version:]:
                    change(connection)
                connection.execute(schema.update().values(version=len(MIGRATIONS)))
        except DatabaseError as error:
            raise ServeError(
                f"The database {self._engine.url.database} cannot be used: {error.orig}. Restore it from a backup, or "
                "choose another --data folder."
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that changes something: all of it or, after an error, nothing."""
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def _set_up_sqlite(self, durable: bool) -> None:
        @event.listens_for(self._engine, "connect")
        def _connect(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # transactions begin where SQLAlchemy says, below
            for pragma in (
                f"busy_timeout = {1000 * BUSY_SECONDS}",
                "journal_mode = WAL",
                f"synchronous = {'FULL' if durable else 'NORMAL'}",
                "foreign_keys = ON",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(self._engine, "begin")
        def _begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
