"""Totals that only grow, kept where the events are: they survive restarts."""

from sqlalchemy import Connection, insert, select, update

from openltx.serve.store.database import Database
from openltx.serve.store.tables import counters


def add_to(connection: Connection, name: str, label: str, amount: float = 1.0) -> None:
    """Count ``name`` with this label up, inside a transaction that writes."""
    mine = (counters.c.name == name) & (counters.c.label == label)
    if not connection.execute(update(counters).where(mine).values(value=counters.c.value + amount)).rowcount:
        connection.execute(insert(counters).values(name=name, label=label, value=amount))


def totals(database: Database) -> dict[tuple[str, str], float]:
    """All totals by (name, label)."""
    with database.read() as connection:
        return {(row.name, row.label): row.value for row in connection.execute(select(counters))}
