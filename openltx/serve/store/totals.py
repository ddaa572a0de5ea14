"""Totals that only grow, kept where the events are: they survive restarts."""

from sqlalchemy import Connection, select

from openltx.serve.store.database import Database, upsert
from openltx.serve.store.tables import counters


def add_to(connection: Connection, name: str, label: str, amount: float = 1.0) -> None:
    """Count ``name`` with this label up, inside a transaction that writes."""
    row = {"name": name, "label": label, "value": amount}
    upsert(connection, counters, row, {"value": counters.c.value + amount})


def totals(database: Database) -> dict[tuple[str, str], float]:
    """All totals by (name, label)."""
    with database.read() as connection:
        return {(row.name, row.label): row.value for row in connection.execute(select(counters))}
