"""The database: durable, upgradable, and honest about what it cannot open."""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text

from openltx.errors import ServeError
from openltx.serve.settings import Limits, ServerSettings
from openltx.serve.store import database as database_module
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Job, Jobs
from openltx.serve.store.tables import MIGRATIONS
from openltx.serve.store.tables import jobs as jobs_table

Enter = Callable[..., Job]


def test_it_is_in_wal_mode_and_commits_reach_the_disk(database: Database) -> None:
    with database.read() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_migrating_twice_changes_nothing(database: Database, enter: Enter) -> None:
    job = enter(Jobs(database, Limits()))
    database.migrate()
    assert Jobs(database, Limits()).get("ann", job.id) == job


def test_an_old_database_is_brought_up_to_date_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def change(connection: Connection) -> None:
        calls.append(connection.scalar(select(jobs_table.c.number).limit(1)))
        connection.execute(text("ALTER TABLE jobs ADD COLUMN colour TEXT"))

    monkeypatch.setattr(database_module, "MIGRATIONS", (*MIGRATIONS, change))
    database.migrate()
    database.migrate()
    assert len(calls) == 1
    with database.read() as connection:
        connection.execute(text("SELECT colour FROM jobs"))
    monkeypatch.setattr(database_module, "MIGRATIONS", ())
    with pytest.raises(ServeError, match="newer openltx"):
        database.migrate()


def test_a_failed_migration_leaves_the_old_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE jobs ADD COLUMN colour TEXT"))
        raise ZeroDivisionError

    monkeypatch.setattr(database_module, "MIGRATIONS", (*MIGRATIONS, fail))
    with pytest.raises(ZeroDivisionError):
        database.migrate()
    with database.read() as connection:
        assert "colour" not in {row.name for row in connection.execute(text("PRAGMA table_info(jobs)"))}


def test_something_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.db").write_bytes(b"this is not a database, but long enough to be looked at" * 100)
    with pytest.raises(ServeError, match=r"server\.db"):
        Database(f"sqlite:///{tmp_path / 'server.db'}").migrate()


def _accept_until_killed(enter: Enter, url: str, out: int) -> None:
    jobs = Jobs(Database(url), Limits(queue=10**6, jobs_per_key=10**6))
    while True:
        os.write(out, f"{enter(jobs).id}\n".encode())


def test_what_was_accepted_survives_a_kill(database: Database, settings: ServerSettings, enter: Enter) -> None:
    read, write = os.pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_accept_until_killed, args=(enter, settings.database_url, write)
    )
    process.start()
    os.close(write)
    received = b""
    while received.count(b"\n") < 20:
        received += os.read(read, 4096)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while chunk := os.read(read, 4096):
        received += chunk
    os.close(read)
    accepted = {line.decode() for line in received.split(b"\n") if len(line) == len("video_") + 32}
    there = Jobs(database, Limits()).ids()
    assert accepted <= there
    assert len(there) <= len(accepted) + 1
    with sqlite3.connect(settings.data / "server.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
