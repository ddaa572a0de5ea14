"""What raters have answered: one row for each question, on disk before it is acknowledged.

SQLite in WAL mode with ``synchronous=FULL``: an answer that the page was told is kept survives the process and the
machine. Each call has a connection of its own, so any thread may call.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openltx.eval.survey.study import Question

Choice = Literal["left", "tie", "right"]
CRITERIA = ("quality", "motion", "adherence", "overall")

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    rater TEXT NOT NULL, number INTEGER NOT NULL, left TEXT NOT NULL, right TEXT NOT NULL, broken TEXT,
    quality TEXT NOT NULL, motion TEXT NOT NULL, adherence TEXT NOT NULL, overall TEXT NOT NULL,
    seconds REAL NOT NULL, answered_at REAL NOT NULL, PRIMARY KEY (rater, number)
) STRICT
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question, answered. ``choices`` is in the order of ``CRITERIA``; ``seconds`` is how long it took."""

    rater: str
    question: Question
    choices: tuple[Choice, Choice, Choice, Choice]
    seconds: float

    def choice(self, criterion: str) -> Choice:
        return self.choices[CRITERIA.index(criterion)]


class Answers:
    """The answers of a study, in a file that is made if it is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_TABLE)

    def keep(self, answer: Answer) -> None:
        """Write an answer; an earlier one to the same question is replaced."""
        q = answer.question
        row = (answer.rater, q.number, q.left, q.right, q.broken, *answer.choices, answer.seconds, time.time())
        with self._connection() as connection:
            connection.execute(f"INSERT OR REPLACE INTO answers VALUES ({', '.join('?' * len(row))})", row)

    def answered(self, rater: str) -> set[int]:
        """The numbers of the questions that a rater has answered."""
        with self._connection() as connection:
            return {number for (number,) in connection.execute("SELECT number FROM answers WHERE rater = ?", (rater,))}

    def all(self) -> list[Answer]:
        """Every answer, by rater and number."""
        with self._connection() as connection:
            rows = connection.execute("SELECT * FROM answers ORDER BY rater, number").fetchall()
        return [
            Answer(
                rater=rater,
                question=Question(number=number, prompt="", left=left, right=right, broken=broken),
                choices=(quality, motion, adherence, overall),
                seconds=seconds,
            )
            for rater, number, left, right, broken, quality, motion, adherence, overall, seconds, _ in rows
        ]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
