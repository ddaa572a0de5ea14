"""``openltx serve``: its mistakes end in one line, and its keys can be made, seen and removed."""

import socket
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from openltx.cli import main
from openltx.serve.files import Files


def test_keys_are_added_listed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(tmp_path / "data")]
    assert main(["serve", "keys", "add", "ann", "--priority", "3", *data]) == 0
    secret = capsys.readouterr().out.strip()
    assert len(secret) > 40
    assert main(["serve", "keys", "list", *data]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("ann  oltx-")
    assert "priority 3" in listed
    assert secret not in listed
    assert main(["serve", "keys", "remove", "ann", *data]) == 0
    assert main(["serve", "keys", "list", *data]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["keys", "remove", "bob"], 'no key "bob"'),
        (["--host", "0.0.0.0"], "openltx serve keys add"),
        (["--host", "256.256.256.256", "--port", "1"], "openltx serve keys add"),
        (["--port", "99999"], "Cannot listen"),
    ],
)
def test_a_mistake_gets_one_line_and_code_2(
    line: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *line, "--data", str(tmp_path)]) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_a_taken_port_and_a_taken_folder_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port), "--data", str(tmp_path)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err.splitlines()[-1]
    with Files(tmp_path).locked():
        assert main(["serve", "--port", "0", "--data", str(tmp_path)]) == 2
    assert "Another server" in capsys.readouterr().err.splitlines()[-1]


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "playrom", "--port", "0", "--data", str(tmp_path)]) == 2
    assert "Did you mean playroom?" in capsys.readouterr().err.splitlines()[-1]
