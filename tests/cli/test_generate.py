"""``openltx generate`` and ``openltx demo``: files, names and what is printed, with a tiny model."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openltx import GenerationRequest, Generator
from openltx.cli import demo as demo_command
from openltx.cli import main
from openltx.cli.output import free_name
from openltx.media.io import read_metadata, read_video
from openltx.pipelines import residency


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_wish_of_the_request_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--help"]) == 0
    page = capsys.readouterr().out
    for field in GenerationRequest.__dataclass_fields__:
        assert f"--{field.replace('_', '-')}" in page
    assert "What the video shows" in page


def test_flags_reach_the_file(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = ["--frames", "17", "--size", "32x64", "--fps", "12", "--steps", "2", "--cfg", "1.5", "--seed", "7"]
    flags = [*wishes, "--device", "cpu", "-o", "ball.mp4"]
    assert main(["generate", "a red ball", "--negative", "a box", "--model", str(tiny_checkpoint), *flags]) == 0
    assert "ball.mp4  17 frames, 32x64, 12 fps, seed 7," in capsys.readouterr().out
    frames, fps = read_video("ball.mp4")
    assert frames.shape == (17, 64, 32, 3)
    assert fps == 12
    request = GenerationRequest.from_json(read_metadata("ball.mp4")["request"])
    assert (request.prompt, request.negative, request.steps, request.cfg) == ("a red ball", "a box", 2, 1.5)


def test_an_image_and_a_contact_sheet(tiny_checkpoint: Path) -> None:
    Image.new("RGB", (40, 30), (200, 30, 30)).save("start.png")
    line = ["generate", "a ball", "--image", "start.png", "--contact-sheet", "sheet.png", "-o", "ball.gif"]
    assert main([*line, "--model", str(tiny_checkpoint)]) == 0
    assert {path.name for path in Path().iterdir()} == {"start.png", "sheet.png", "ball.gif"}


def test_an_unreadable_image_leaves_no_file(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("start.png").write_text("no picture")
    line = ["generate", "a ball", "--image", "start.png", "-o", "ball.mp4", "--model", str(tiny_checkpoint)]
    assert main(line) == 2
    assert "start.png" in capsys.readouterr().err
    assert not Path("ball.mp4").exists()


def test_an_odd_size_names_the_nearest_and_leaves_no_file(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a ball", "--size", "100x64", "--model", str(tiny_checkpoint)]) == 2
    assert "96 or 128" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_damaged_checkpoint_is_named(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cut.safetensors").write_bytes(tiny_checkpoint.read_bytes()[:-1000])
    assert main(["generate", "a ball", "--model", "cut.safetensors"]) == 2
    assert "cut.safetensors" in capsys.readouterr().err


def test_an_interrupted_generation_leaves_no_file(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "decode_stream", interrupt)
    assert main(["generate", "a ball", "-o", "ball.mp4", "--model", str(tiny_checkpoint)]) == 130
    assert list(Path().iterdir()) == []


def test_frames_as_pictures_are_reported_as_a_series(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a ball", "-o", "ball.png", "--model", str(tiny_checkpoint)]) == 0
    assert "ball-0001.png to ball-0009.png" in capsys.readouterr().out


def test_a_name_of_its_own_is_never_taken_twice(tiny_checkpoint: Path) -> None:
    line = ["generate", "A red ball, bouncing!", "--seed", "7", "--model", str(tiny_checkpoint)]
    assert [main(line) for _ in range(2)] == [0, 0]
    assert {path.name for path in Path().iterdir()} == {"a-red-ball-bouncing-7.mp4", "a-red-ball-bouncing-7-2.mp4"}


def test_a_prompt_without_letters_still_gives_a_name() -> None:
    assert free_name(GenerationRequest("红球", seed=1)).name == "video-1.mp4"


def test_the_demo_makes_two_videos_and_their_sheets(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "shipped.png"
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(start)
    monkeypatch.setattr(demo_command, "START_IMAGE", start)
    assert main(["demo", "-o", "out/demo", "--model", str(tiny_checkpoint)]) == 0
    assert {path.name for path in Path("out/demo").iterdir()} == {"text.mp4", "text.png", "image.mp4", "image.png"}
    assert capsys.readouterr().out.count("seed 7,") == 2


def test_a_file_where_the_demos_folder_should_be_is_named(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("demo").write_text("")
    assert main(["demo", "-o", "demo", "--model", str(tiny_checkpoint)]) == 2
    assert capsys.readouterr().err.strip() == "File exists: demo"


def test_where_it_runs_and_how_it_decodes_are_flags(tiny_checkpoint: Path) -> None:
    flags = [
        "--residency",
        "streamed",
        "--tile",
        "128",
        "--cache-threshold",
        "0.1",
        "--size",
        "160x32",
        "-o",
        "ball.mp4",
    ]
    assert main(["generate", "a ball", "--model", str(tiny_checkpoint), *flags]) == 0
    request = GenerationRequest.from_json(read_metadata("ball.mp4")["request"])
    assert (request.tile, request.cache_threshold) == (128, 0.1)
    assert read_video("ball.mp4")[0].shape == (9, 32, 160, 3)


def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(residency, "available_memory", lambda _: 400 * 2**20)
    monkeypatch.setattr(residency, "load_bundle", lambda *_, **__: pytest.fail("it was loaded"))
    line = ["generate", "a ball", "--model", str(tiny_checkpoint), "--size", "2048x2048", "--frames"]
    for frames in (["257"], ["2049", "--window", "257", "--overlap", "17"]):
        assert main([*line, *frames]) == 2
        assert "0.4 GiB are free. What would fit: --size" in capsys.readouterr().err
    assert list(Path().iterdir()) == []
