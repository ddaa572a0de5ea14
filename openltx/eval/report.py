"""What an evaluation leaves behind: JSON for machines, a markdown table for people, both written atomically."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Cell = str | float | int | None


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report as indented JSON."""
    write_text(path, json.dumps(report, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is never seen half done; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(text)
    partial.replace(path)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A markdown table; floats get four significant digits, None becomes a dash."""
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)
