"""``openltx train lora`` and ``full``: from a folder of videos to a file that generates."""

from pathlib import Path

import numpy as np
import pytest

import openltx
from openltx.checkpoints.lora import load_lora
from openltx.cli import main
from openltx.media.io import write_video

SIZE = ("--size", "64x32", "--frames", "9", "--batch-size", "2")
FAST = ("--lr", "0.02")  # something shall have changed after two steps


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos with captions, and a folder with a reference for each."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "references").mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        for place in (folder, folder / "references"):
            write_video(place / f"{index}.mp4", rng.integers(0, 255, (9, 32, 64, 3), dtype=np.uint8), 24.0)
    (folder / "captions.csv").write_text("path,caption\n" + "".join(f"{i}.mp4,a red ball {i}\n" for i in range(3)))
    return folder


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_folder_becomes_a_lora_that_generates(
    tiny_checkpoint: Path, own: Path, tmp_path: Path, precision: str
) -> None:
    out = tmp_path / "run"
    words = ("train", "lora", "playroom", "--base", tiny_checkpoint, "--data", own, "--out", out, *SIZE)
    shape = ("--rank", "4", "--alpha", "8", "--targets", "to_q", "ff.net.2", "--dropout", "0.1")
    assert run(*words, *shape, "--precision", precision, "--steps", "2", "--prompts", "a blue cube", *FAST) == 0
    assert (out / "samples" / "step_00000002_ema_0.mp4").is_file()
    assert len(list((out / "latents").glob("*.safetensors"))) == 3
    for name in ("lora", "lora-comfyui", "lora/step_00000002"):
        lora = load_lora(out / f"{name}.safetensors")
        assert len(lora.layers) == 2 * 3
        assert {change.down.shape[0] for change in lora.layers.values()} == {4}
    request = {"prompt": "a red ball", "seed": 0}
    plain = openltx.generate(openltx.load(tiny_checkpoint, device="cpu"), **request)
    model = openltx.load(tiny_checkpoint, device="cpu", loras=[(out / "lora.safetensors", 50.0)])
    assert (openltx.generate(model, **request).frames != plain.frames).any()


def test_an_in_context_lora_wants_references_and_learns_from_them(
    tiny_checkpoint: Path, own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "lora", "ltxv-13b-ic", "--base", tiny_checkpoint, "--data", own, "--out", tmp_path, *SIZE)
    assert run(*words, "--steps", "1") == 2
    assert "learns from pairs" in capfd.readouterr().err
    assert run(*words, "--steps", "1", "--references", own / "references") == 0
    assert (tmp_path / "samples" / "step_00000001_ema_1.mp4").is_file()


def test_all_weights_become_a_whole_model(tiny_checkpoint: Path, own: Path, tmp_path: Path) -> None:
    words = ("train", "full", "playroom", "--base", tiny_checkpoint, "--data", own, "--out", tmp_path, *SIZE, *FAST)
    assert run(*words, "--steps", "2") == 0
    model = openltx.load(tmp_path / "model.safetensors", device="cpu")
    base = openltx.load(tiny_checkpoint, device="cpu")
    assert model.sampling == base.sampling
    assert model.schedule == base.schedule
    weights, before = model.transformer.state_dict(), base.transformer.state_dict()
    assert any(not bool((weights[name] == before[name]).all()) for name in weights)
    assert openltx.generate(model, prompt="a red ball", seed=0).frames.shape == (9, 32, 64, 3)


def test_what_cannot_be_is_named(
    tiny_checkpoint: Path, own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def error(*words: str | Path) -> str:
        assert run("train", *words, "--out", tmp_path / "run") == 2
        return capfd.readouterr().err

    source = ("--base", tiny_checkpoint, "--data", own)
    assert 'no recipe "ltxv-3b"' in error("lora", "ltxv-3b", *source)
    assert "nearest: 32 or 64" in error("lora", "playroom", *source, "--size", "50x64")
    assert "ends with to_z" in error("lora", "playroom", *source, *SIZE, "--targets", "to_z")
    assert "cannot form groups of 2" in error("lora", "playroom", *source, *SIZE, "--sequence", "2")
    assert "no folder" in error("lora", "playroom", "--base", tiny_checkpoint, "--data", own / "nowhere")
