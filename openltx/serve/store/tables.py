"""The tables, and the changes that bring an older database up to date."""

from collections.abc import Callable

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

schema = Table("schema", MetaData(), Column("version", Integer, nullable=False))
"""One row: how many of MIGRATIONS the database is past."""

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("hash", String, nullable=False, unique=True),  # SHA-256 of the secret
    Column("hint", String, nullable=False),  # the secret's first characters, to tell keys apart
    Column("priority", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False, index=True),
    Column("kind", String, nullable=False),  # picture | clip
    Column("filename", Text, nullable=False),  # what the client called it; shown, never used
    Column("purpose", String, nullable=False),
    Column("digest", String, nullable=False),  # SHA-256 of what was sent
    Column("bytes", BigInteger, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),  # the order of arrival
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("status", String, nullable=False),
    Column("key_priority", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("size", String, nullable=False),
    Column("seconds", String, nullable=False),
    Column("request", JSON, nullable=False),  # the fields of a GenerationRequest that differ from its defaults
    Column("resolved", JSON),  # all of them, once the worker has filled them in
    Column("remixed_from", String),
    Column("extends", JSON),  # the video that this one continues, see jobs.Extends
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("expires_at", Float, index=True),
    Column("stage", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("progress", Integer, nullable=False),
    Column("stages", JSON, nullable=False),  # seconds by stage
    Column("bytes", BigInteger, nullable=False),
    Column("worker", String),
    Column("attempt", Integer, nullable=False),  # counts claims; only the latest one may write
    Column("crashes", Integer, nullable=False),
    Column("error_code", String),
    Column("error_message", Text),
    Index("jobs_of_owner", "owner", "number"),
    Index("jobs_by_status", "status", "owner", "number"),
    Index("jobs_started", "owner", "started_at"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),  # status | progress | preview | log
    Column("data", JSON, nullable=False),
    Index("events_of_job", "job", "number"),
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", String, primary_key=True),
    Column("token", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("job", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Float, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String, primary_key=True),
    Column("label", String, primary_key=True),
    Column("value", Float, nullable=False),
)
"""Totals that only grow, for /metrics: they survive restarts and deleted jobs."""

workers = Table(
    "workers",
    metadata,
    Column("id", String, primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("state", String, nullable=False),  # loading | ready | failed
    Column("message", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("beat_at", Float, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("source", String, primary_key=True),  # as the server was told: "playroom" or a path; never shown
    Column("name", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("sampling", JSON, nullable=False),
    Column("loaded_at", Float, nullable=False),
)
"""What the worker has found out about a model, so that the web process knows it without loading weights."""


def _add_extends(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE jobs ADD COLUMN extends JSON"))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_add_extends,)
"""Number n brings a database from schema n to n + 1. To change a table, change it above, so that new databases have it,
and append a function that does the same to an old one."""
