"""The command line as a whole: the help page, and one line for every mistake."""

import subprocess
import sys

import pytest

from openltx import CheckpointError, cli
from openltx.cli import COMMANDS, main


def test_help_shows_every_command_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert all(name in page for name in COMMANDS)
    assert 'openltx generate "' in page


def test_help_and_unknown_commands_need_no_heavy_import() -> None:
    script = (
        "import sys; from openltx.cli import main; main(['--help']); main(['eval', '--help']); main(['genrate']); "
        "sys.exit(sorted({'torch', 'transformers', 'av', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_needs_no_heavy_import() -> None:
    script = "import sys, openltx; dir(openltx); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["genrate", "a ball"], 'Did you mean "generate"?'),
        (["generate"], "The prompt is empty"),
        (["generate", "a ball", "--step", "3"], "Did you mean --steps?"),
        (["generate", "a ball", "--steps", "many"], "--steps"),
        (["generate", "a ball", "--fit", "stretch"], "exact"),
        (["generate", ""], "The prompt is empty"),
        (["generate", "a ball", "--model", "playrom"], "Did you mean playroom?"),
        (["generate", "a ball", "-o", "nowhere/ball.mp4"], "no folder nowhere"),
        (["generate", "a ball", "-o", "ball.txt"], ".mp4"),
        (["inspect", "nothing.mp4"], "nothing.mp4"),
        (["inspect", "nothing.safetensors"], "nothing.safetensors"),
    ],
)
def test_a_mistake_gets_one_line_and_code_2(
    line: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err.strip()
    assert expected in message
    assert len(message.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "code", "expected"),
    [
        (KeyboardInterrupt(), 130, "Stopped."),
        (CheckpointError("two\nlines"), 2, "two lines"),
        (ModuleNotFoundError("no mujoco", name="mujoco"), 2, "pip install 'openltx[world]'"),
        (OSError(28, "No space left on device", "ball.mp4"), 2, "No space left on device: ball.mp4"),
    ],
)
def test_what_ends_a_command_ends_in_one_line(
    raised: BaseException, code: int, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(words: list[str]) -> None:
        raise raised

    monkeypatch.setattr(cli, "app", interrupted)
    assert main(["inspect", "x"]) == code
    assert capsys.readouterr().err.strip().endswith(expected)


def test_a_bug_is_not_dressed_up_as_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", "x"])
