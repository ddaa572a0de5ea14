"""People's answers, in an SQLite file beside the clips: each is on disk before the next pair is shown."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RATINGS = "ratings.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rating (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    clip_left TEXT NOT NULL,
    clip_right TEXT NOT NULL,
    better TEXT,               -- NULL: the person could not say
    rater TEXT NOT NULL,
    at TEXT NOT NULL
)
"""


@dataclass(frozen=True)
class Rating:
    """One answer: ``better`` is one of the two clips, or None for a tie."""

    left: str
    right: str
    better: str | None
    rater: str


class Ratings:
    """The file of answers. Several people may answer at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(_SCHEMA)

    def add(self, rating: Rating) -> None:
        """Keep an answer."""
        with self._open() as database:
            database.execute(
                "INSERT INTO rating (clip_left, clip_right, better, rater, at) VALUES (?, ?, ?, ?, ?)",
                (rating.left, rating.right, rating.better, rating.rater, datetime.now(UTC).isoformat()),
            )

    def undo(self, rater: str) -> Rating | None:
        """Take back a person's last answer, and say which it was; None if there is none."""
        with self._open() as database:
            row = database.execute(
                "SELECT id, clip_left, clip_right, better, rater FROM rating WHERE rater = ? ORDER BY id DESC LIMIT 1",
                (rater,),
            ).fetchone()
            if row is None:
                return None
            database.execute("DELETE FROM rating WHERE id = ?", (row[0],))
            return Rating(*row[1:])

    def all(self) -> list[Rating]:
        """All answers, in order."""
        with self._open() as database:
            rows = database.execute("SELECT clip_left, clip_right, better, rater FROM rating ORDER BY id").fetchall()
        return [Rating(*row) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction."""
        database = sqlite3.connect(self._path, timeout=30)
        try:
            database.execute("PRAGMA synchronous=FULL")
            with database:
                yield database
        finally:
            database.close()


def rated_pairs(answers: Sequence[Rating], places: dict[str, int]) -> list[tuple[int, int]]:
    """(better, worse) of every answer that is no tie, for clips that are still there."""
    return [
        (places[a.better], places[a.right if a.better == a.left else a.left])
        for a in answers
        if a.better is not None and a.left in places and a.right in places
    ]
