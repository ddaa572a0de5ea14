"""The database: opened, brought up to date, and its two kinds of transaction.

SQLite runs in WAL mode: readers never wait, and a commit survives the death of the process. ``durable`` makes it
survive a power cut too, for one flush to the disk a commit; the web process accepts work that way. A worker does
without: what it loses runs again. SQLite's writers take the lock when they begin, so no transaction fails half way
for want of it.

PostgreSQL serves several servers at once. Its writers wait for each other only where they change the same rows, so
whoever counts rows before adding one asks to be ``alone``; on SQLite every writer is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import orjson
from sqlalchemy import URL, Connection, Table, create_engine, event, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DatabaseError

from openltx.errors import ServeError
from openltx.serve.store.tables import MIGRATIONS, metadata, schema

BUSY_SECONDS = 20
"""How long a writer waits for another one."""
_ALONE = 0x6F6C7478  # the number of PostgreSQL's advisory lock: "oltx"


class Database:
    """A store at an address of SQLAlchemy's: "sqlite:////data/server.db", "postgresql://user:secret@host/name".

    Raises ``ServeError`` for an address that is none, or of another kind of database.
    """

    def __init__(self, url: str, *, durable: bool = True) -> None:
        self._url = _with_driver(url)
        self._engine = create_engine(
            self._url,
            pool_size=40,
            max_overflow=-1,
            pool_pre_ping=not self.is_local,
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
        )
        if self.is_local:
            self._set_up_sqlite(durable)

    @property
    def is_local(self) -> bool:
        """Whether reading takes microseconds: SQLite, in this process."""
        return self._url.get_backend_name() == "sqlite"

    def migrate(self) -> None:
        """Create the tables or bring them up to date; raises ``ServeError`` for a newer or damaged database."""
        try:
            with self.write(alone=True) as connection:
                schema.create(connection, checkfirst=True)
                version = connection.scalar(select(schema.c.version))
                if version is None:
                    metadata.create_all(connection)
                    connection.execute(schema.insert().values(version=len(MIGRATIONS)))
                    return
                if version > len(MIGRATIONS):
                    raise ServeError(
                        f"The database {self._url.database} was made by a newer openltx (schema {version}, this one "
                        f"knows {len(MIGRATIONS)}). Use that version, or another database."
                    )
                for change in MIGRATIONS[version:]:
                    change(connection)
                connection.execute(schema.update().values(version=len(MIGRATIONS)))
        except DatabaseError as error:
            raise ServeError(
                f"The database {self._url.render_as_string()} cannot be used: {str(error.orig).strip()}. Start it, "
                "restore it from a backup, or choose another one (--database, --data)."
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Look, without waiting for anybody; on SQLite at one moment, on PostgreSQL at one for each statement."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, *, alone: bool = False) -> Iterator[Connection]:
        """One transaction that changes something: all of it or, after an error, nothing.

        ``alone``: no other such transaction runs at the same time, in whatever process.
        """
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if alone and not self.is_local:
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ALONE})
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
            driver = connection.connection.dbapi_connection
            assert driver is not None
            driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")  # pyright: ignore[reportAttributeAccessIssue]


def upsert(connection: Connection, table: Table, row: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Insert a row; if its primary key is taken, make these changes to the row that is there."""
    kind = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = kind.insert(table).values(**row)
    connection.execute(statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(changes)))


def _with_driver(url: str) -> URL:
    """The address with the driver that is used for it."""
    with suppress(ArgumentError):
        address = make_url(url)
        match address.get_backend_name():
            case "sqlite":
                return address
            case "postgresql":
                return address.set(drivername="postgresql+psycopg")
    raise ServeError(
        f'"{url.rpartition("@")[2]}" is no database that can be used. Leave it out for SQLite in the data folder, or '
        "write postgresql://USER:PASSWORD@HOST/NAME."
    )
