"""Reports on disk."""

import json
from pathlib import Path

from openltx.eval.report import markdown_table, write_json


def test_tables_round_floats_and_show_what_is_missing() -> None:
    table = markdown_table(["what", "PSNR"], [["all", 26.12345], ["first", None], ["clips", 48]])
    assert table.splitlines() == [
        "| what | PSNR |",
        "| --- | --- |",
        "| all | 26.12 |",
        "| first | - |",
        "| clips | 48 |",
    ]


def test_a_report_replaces_the_last_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_json(path, {"psnr": 1.0})
    write_json(path, {"psnr": 2.0})
    assert json.loads(path.read_text()) == {"psnr": 2.0}
    assert list(path.parent.iterdir()) == [path]
