"""``openltx embed``, ``generate --text-encoder`` and ``generate --prompt-embeds``, with a tiny T5 and a tiny model."""

import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from openltx import GenerationRequest
from openltx.checkpoints.header import read_header
from openltx.checkpoints.prompts import load_prompts
from openltx.checkpoints.t5 import T5Stored
from openltx.cli import main
from openltx.media.io import read_metadata, read_video


@pytest.fixture(scope="module")
def t5_folder(t5_files: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t5_files.write_folder(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("openltx.checkpoints.t5.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def released(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A model file that names no text encoder, as the releases."""
    metadata = read_header(tiny_checkpoint).metadata
    del metadata["openltx.text_encoder"]
    save_file(load_file(tiny_checkpoint), tmp_path / "released.safetensors", metadata=metadata)
    return tmp_path / "released.safetensors"


def test_embed_then_generate_equals_generate_with_the_encoder(
    released: Path, t5_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t5 = ["--text-encoder", str(t5_folder), "--device", "cpu", "--precision", "float32"]
    assert main(["embed", "a red ball", "--negative", "a box", "-o", "ball.safetensors", *t5]) == 0
    assert "ball.safetensors  4 tokens of 384 channels, negative" in capsys.readouterr().out
    assert load_prompts(Path("ball.safetensors")).prompt == "a red ball"
    made = ["--model", str(released), "--seed", "7", "--device", "cpu", "--precision", "float32"]
    assert main(["generate", "a red ball", "--negative", "a box", *made, "--text-encoder", str(t5_folder)]) == 0
    assert main(["generate", "--prompt-embeds", "ball.safetensors", "-o", "given.mp4", *made]) == 0
    asked, given = (read_video(name)[0] for name in ("a-red-ball-7.mp4", "given.mp4"))
    assert np.array_equal(asked, given)
    request = GenerationRequest.from_json(read_metadata("given.mp4")["request"])
    assert (request.prompt, request.negative) == ("a red ball", "a box")


def test_the_second_time_no_weights_are_read(released: Path, t5_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["generate", "a red ball", "--seed", "7", "--model", str(released), "--text-encoder", str(t5_folder)]
    assert main([*line, "-o", "one.mp4"]) == 0

    def unreadable(*_: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(T5Stored, "read", unreadable)
    monkeypatch.setattr(T5Stored, "words", unreadable)
    assert main([*line, "-o", "two.mp4"]) == 0
    assert np.array_equal(read_video("one.mp4")[0], read_video("two.mp4")[0])
    with pytest.raises(AssertionError, match="were read"):
        main(["generate", "a blue ball", *line[2:], "-o", "three.mp4"])


def test_a_prompt_that_is_cut_is_told_in_one_line_each_time(
    t5_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warnings.simplefilter("always")
    for _ in range(2):
        line = ["embed", "ball " * 300, "-o", "long.safetensors", "--text-encoder", str(t5_folder)]
        assert main(line) == 0
        message = capsys.readouterr().err
        assert "has 301 tokens and is cut" in message
        assert "t5.py" not in message


def test_a_released_model_alone_says_what_is_missing(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a red ball", "--model", str(released)]) == 2
    assert "--text-encoder PATH" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["embed", " ", "-o", "a.safetensors", "--text-encoder", "T5"], "The prompt is empty"),
        (["embed", "a ball", "-o", "a.pt", "--text-encoder", "T5"], "go into a .safetensors file"),
        (["embed", "a ball", "-o", "no/a.safetensors", "--text-encoder", "T5"], "no folder no"),
        (["embed", "a ball", "-o", "a.safetensors", "--text-encoder", "nothing"], "nothing"),
        (["embed", "a ball", "-o", "a.safetensors"], "--text-encoder"),
        (["embed", "a ball", "-o", "a.safetensors", "--text-encoder", "T5", "--tokenizer", "no.json"], "no.json"),
        (["generate", "--prompt-embeds", "no.safetensors"], "no.safetensors"),
        (["generate", "--prompt-embeds", "MODEL"], "has no tensor prompt_embeds"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_no_file(
    line: list[str], complaint: str, t5_folder: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = {"T5": str(t5_folder), "MODEL": str(tiny_checkpoint)}
    assert main([real.get(word, word) for word in line]) == 2
    message = capsys.readouterr().err.strip()
    assert complaint in message
    assert len(message.splitlines()) == 1
    assert list(Path().iterdir()) == []


def test_both_commands_explain_their_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("embed", "generate"):
        assert main([command, "--help"]) == 0
        page = capsys.readouterr().out
        assert "--text-encoder" in page
        assert "--tokenizer" in page
