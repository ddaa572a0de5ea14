"""What is known of every clip: ``records.jsonl``, one line each, kept or not; and the journals of passes.

A record is made when a video is cut, and every stage adds to it. A journal holds a pass's results in the order in which
they came, each appended in one write: a killed run finds there what it need not do again. The records themselves are
written at the end, sorted, so their bytes do not depend on who did what when.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openltx.data.manifest import Split, repair_lines, write_atomically
from openltx.errors import DataError

SCHEMA = 1
RECORDS = "records.jsonl"

Measures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A clip to be: ``frames`` frames of the video ``source``, from its frame ``first`` on.

    ``picks`` are the frames that are taken, counted from ``first``, where some are left out or shown twice; None takes
    each. ``pts`` is the time of the first one in the stream's unit. Size in pixels as seen.
    """

    id: str
    source: str
    sha256: str
    shot: int
    first: int
    frames: int
    picks: tuple[int, ...] | None
    pts: int | None
    fps: float
    height: int
    width: int
    split: Split
    credit: str | None
    caption: str
    measures: dict[str, Measures] = field(default_factory=dict)
    bucket: str | None = None
    dropped: tuple[str, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """The frames of the source that the clip shows, in order."""
        return (
            tuple(range(self.first, self.first + self.frames))
            if self.picks is None
            else tuple(self.first + pick for pick in self.picks)
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values, with the schema's version."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Record":
        """Undoes ``to_json``; ``DataError`` for another version."""
        values = dict(values)
        if (schema := values.pop("schema", None)) != SCHEMA:
            raise DataError(f"A record of schema {schema} was found; this is schema {SCHEMA}. Prepare the set again.")
        picks = values["picks"]
        values |= {"dropped": tuple(values["dropped"]), "picks": None if picks is None else tuple(picks)}
        return cls(**values)


def read_records(folder: Path | str) -> list[Record]:
    """The records of a prepared set, in order; ``DataError`` if there are none."""
    path = Path(folder) / RECORDS
    if not path.is_file():
        raise DataError(f"No {RECORDS} in {folder}. Make one with: openltx data prepare VIDEOS --out {folder}")
    return [Record.from_json(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Write ``records.jsonl``."""
    write_lines(folder / RECORDS, (record.to_json() for record in records))


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """A file of JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


class Journal:
    """The results of a pass by key. ``made_with`` says by what: results of anything else are forgotten."""

    def __init__(self, path: Path, made_with: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        repair_lines(path)
        self._path, self._made_with = path, made_with
        self._results: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for entry in map(json.loads, lines):
            if entry["made_with"] == made_with:
                self._results[entry["key"]] = entry["result"]

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def get(self, key: str, default: Any) -> Any:
        """The result of a key, or ``default``."""
        return self._results.get(key, default)

    def __getitem__(self, key: str) -> Any:
        return self._results[key]

    def add(self, key: str, result: Any) -> None:
        """Keep a result, at once and on disk; it comes back as JSON gives it."""
        line = json.dumps({"key": key, "made_with": self._made_with, "result": result}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._results[key] = json.loads(line)["result"]
