"""LoRAs through the front door: what the user writes is read, put on, named in the video, and taken off again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import openltx
from openltx import CheckpointError, GenerationRequest, Generator, LTXModel, RequestError
from openltx.checkpoints import load_lora
from openltx.checkpoints.header import read_header
from openltx.checkpoints.load import linear_shapes_of
from openltx.checkpoints.single_file import header_config
from openltx.cli import main
from openltx.geometry import patchify
from openltx.media.io import read_metadata, read_video, write_video
from openltx.media.transforms import to_tensor
from openltx.models.lora import LoRA
from openltx.pipelines.loras import parse_lora, put_on, read_loras

PROMPT = "a red ball"
EAGER = {"device": "cpu", "precision": "float32"}


def write_lora(path: Path, model: Path, *, rank: int = 4, seed: int = 0) -> Path:
    """A random LoRA on attention and feed-forward of every block, as an in-context LoRA has it, in ComfyUI's naming."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (d, c) in linear_shapes_of(model).items():
        if name.startswith("transformer_blocks."):
            tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(rank, c, generator=generator) * c**-0.5
            tensors[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(d, rank, generator=generator)
    save_file(tensors, path)
    return path


@pytest.fixture
def lora(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return write_lora(tmp_path / "style.safetensors", tiny_checkpoint)


@pytest.fixture
def other(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return write_lora(tmp_path / "other.safetensors", tiny_checkpoint, rank=2, seed=1)


def latents(model: LTXModel, **wishes: object) -> torch.Tensor:
    generator = Generator(model)
    prepared = generator.prepare(replace(GenerationRequest(PROMPT, seed=1), **wishes))
    *_, last = generator.sample(prepared)
    return last.state.targets


def relative(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got - exact).norm() / exact.norm())


def test_a_wish_is_a_file_a_file_with_a_strength_or_a_pair(tmp_path: Path) -> None:
    assert parse_lora("a.safetensors") == (Path("a.safetensors"), 1.0)
    assert parse_lora("C:/a:b.safetensors:-0.5") == (Path("C:/a:b.safetensors"), -0.5)
    assert parse_lora((Path("a"), 2.0)) == (Path("a"), 2.0)
    odd = tmp_path / "a.safetensors:0.5"
    odd.touch()
    assert parse_lora(odd) == (odd, 1.0)


@pytest.mark.parametrize("strength", ["", "high", "nan", "inf", "1,5"])
def test_a_strength_that_is_no_number_is_refused(strength: str) -> None:
    with pytest.raises(RequestError, match=r"LoRA a\.safetensors .*no number"):
        parse_lora(f"a.safetensors:{strength}")
    with pytest.raises(RequestError, match=r"LoRA a\.safetensors .*no number"):
        parse_lora(("a.safetensors", float("nan")))


def test_one_lora_is_a_list_too(tiny_checkpoint: Path) -> None:
    with pytest.raises(RequestError, match="no list of LoRAs"):
        read_loras("a.safetensors", tiny_checkpoint)


def test_a_loaded_model_samples_with_its_loras_merged_or_applied(
    tiny_checkpoint: Path, tiny_model: LTXModel, lora: Path, other: Path
) -> None:
    wishes = (f"{lora}:0.8", (other, -0.5))
    auto, merged, applied = (
        latents(openltx.load(tiny_checkpoint, loras=wishes, lora_mode=mode, **EAGER))
        for mode in ("auto", "merged", "applied")
    )
    assert torch.equal(auto, merged)
    assert relative(applied, merged) < 1e-4
    assert relative(merged, latents(tiny_model)) > 0.01


def test_weights_merged_in_the_file_give_the_same_video(tiny_checkpoint: Path, lora: Path, tmp_path: Path) -> None:
    """The formula, done to the file's tensors by hand."""
    tensors, changes = load_file(tiny_checkpoint), load_file(lora)
    for name, down in changes.items():
        if name.endswith(".lora_A.weight"):
            up = changes[name.replace("lora_A", "lora_B")]
            tensors[f"model.{name.replace('.lora_A', '')}"] += 0.7 * torch.einsum("dr,rc->dc", up, down)
    header = read_header(tiny_checkpoint)
    metadata = header.metadata | {"config": json.dumps(header_config(header))}
    save_file(tensors, tmp_path / "merged.safetensors", metadata=metadata)
    by_hand = openltx.load(tmp_path / "merged.safetensors", **EAGER)
    assert relative(latents(openltx.load(tiny_checkpoint, loras=[(lora, 0.7)], **EAGER)), latents(by_hand)) < 1e-4


def test_taking_loras_off_gives_the_same_bits_as_before(tiny_checkpoint: Path, lora: Path) -> None:
    model = openltx.load(tiny_checkpoint, **EAGER)
    before = latents(model)
    for mode in ("merged", "applied"):
        wearing, undo = put_on(model, [(load_lora(lora), 1.0)], mode)
        assert [used.name for used in wearing.loras] == ["style.safetensors"]
        assert not torch.equal(latents(wearing), before)
        undo()
        assert torch.equal(latents(model), before)


def test_int8_serves_every_lora_from_one_cache_unless_they_are_merged(
    tiny_checkpoint: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "cache"))

    def small(*wishes: str, mode: str = "auto") -> torch.Tensor:
        return latents(openltx.load(tiny_checkpoint, device="cpu", precision="int8", loras=wishes, lora_mode=mode))

    def cached() -> int:
        return len(list((tmp_path / "cache" / "int8").iterdir()))

    exact = latents(openltx.load(tiny_checkpoint, loras=[lora], **EAGER))
    assert 0 < relative(small(str(lora)), exact) < 0.1
    assert relative(small(f"{lora}:0.5"), exact) > 0.02
    assert cached() == 1
    merged = small(str(lora), mode="merged")
    assert 0 < relative(merged, exact) < 0.1
    assert cached() == 2
    assert relative(small(f"{lora}:0.5", mode="merged"), merged) > 0.02
    assert cached() == 3
    assert torch.equal(small(str(lora), mode="merged"), merged)
    assert cached() == 3


def test_the_finished_video_names_its_loras(
    tiny_checkpoint: Path, lora: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ball.mp4"
    line = ["generate", PROMPT, "--model", str(tiny_checkpoint), "--steps", "1", "-o", str(out)]
    assert main([*line, "--lora", f"{lora}:0.5", str(other), "--lora-mode", "applied"]) == 0
    expected = [
        {"name": "style.safetensors", "fingerprint": load_lora(lora).fingerprint, "strength": 0.5},
        {"name": "other.safetensors", "fingerprint": load_lora(other).fingerprint, "strength": 1.0},
    ]
    assert json.loads(read_metadata(out)["loras"]) == expected
    capsys.readouterr()
    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loras"] == expected
    assert main(["inspect", str(out)]) == 0
    assert f"style.safetensors, strength 0.5, {expected[0]['fingerprint']}" in capsys.readouterr().out


def test_a_video_without_loras_says_nothing_of_them(tiny_model: LTXModel, tmp_path: Path) -> None:
    openltx.generate(tiny_model, PROMPT, seed=1).save(tmp_path / "ball.mp4")
    assert "loras" not in read_metadata(tmp_path / "ball.mp4")


def test_a_lora_of_another_model_is_refused_before_the_model_is_loaded(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("openltx.pipelines.residency.load_bundle", lambda *_, **__: pytest.fail("loaded"))
    foreign = {
        f"transformer.transformer_blocks.47.attn1.to_q.lora_{part}.weight": torch.ones(shape)
        for part, shape in (("A", (1, 4096)), ("B", (4096, 1)))
    }
    save_file(foreign, tmp_path / "big.safetensors")
    line = ["generate", PROMPT, "--model", str(tiny_checkpoint), "-o", str(tmp_path / "ball.mp4")]
    assert main([*line, "--lora", str(tmp_path / "big.safetensors")]) == 2
    message = capsys.readouterr().err
    assert "big.safetensors" in message
    assert "13B" in message
    assert main([*line, "--lora", str(tiny_checkpoint)]) == 2
    assert "whole model" in capsys.readouterr().err
    assert not (tmp_path / "ball.mp4").exists()
    with pytest.raises(CheckpointError, match="There is no file"):
        openltx.load(tiny_checkpoint, loras=[tmp_path / "missing.safetensors"])


def test_an_in_context_lora_looks_at_a_reference_that_stays_clean(
    tiny_checkpoint: Path, lora: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "depth.mp4"
    write_video(clip, np.random.default_rng(0).integers(0, 255, (9, 32, 64, 3)).astype(np.uint8), 8.0)
    model = openltx.load(tiny_checkpoint, loras=[lora], lora_mode="applied", **EAGER)
    generator = Generator(model)
    prepared = generator.prepare(GenerationRequest(PROMPT, reference=clip, seed=1))
    n = prepared.grid.num_tokens
    steps = list(generator.sample(prepared))
    with torch.inference_mode():
        shown = patchify(model.vae.encode(to_tensor(read_video(clip)[0])[None]))
    positions = prepared.state.positions
    assert torch.equal(positions[..., :n], positions[..., n:])
    assert prepared.state.strength.tolist() == [[1.0] * n + [0.0] * n]
    for step in steps:
        torch.testing.assert_close(step.state.tokens[:, :n], shown, rtol=1e-4, atol=1e-4)
    both, without_lora = steps[-1].state.targets, latents(openltx.load(tiny_checkpoint, **EAGER), reference=clip)
    assert relative(both, latents(model)) > 0.01
    assert relative(both, without_lora) > 0.01
    merged = openltx.load(tiny_checkpoint, loras=[lora], lora_mode="merged", **EAGER)
    assert relative(latents(merged, reference=clip), both) < 1e-4


def test_a_lora_that_wants_smaller_references_warns(tiny_checkpoint: Path) -> None:
    model = openltx.load(tiny_checkpoint, **EAGER)
    wants = LoRA(name="ic.safetensors", layers={}, metadata={"reference_downscale_factor": "2"})
    with pytest.warns(UserWarning, match=r"ic\.safetensors .* 2 times smaller"):
        put_on(model, [(wants, 1.0)])


def test_inspecting_a_lora_says_what_it_is(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(lora), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["lora"]
    assert (shown["layout"], shown["ranks"]) == ("comfyui", [4])
    assert shown["modules"]["transformer_blocks.*.ff.net.2"] == 2
    assert shown["made_for"] == "blocks 0 to 1 of a transformer 32 wide"
    tensors = load_file(lora)
    del tensors["diffusion_model.transformer_blocks.0.ff.net.2.lora_B.weight"]
    save_file(tensors, lora)
    assert main(["inspect", str(lora)]) == 0
    assert "no counterpart" in capsys.readouterr().out
