"""Plans: they count the calls that are made, know what fits, and say what would."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx import GenerationRequest, Generator, LTXModel, RequestError
from openltx.checkpoints.load import Description, describe
from openltx.flow.schedule import Schedule
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.pipelines import fitting, machines
from openltx.pipelines import generate as generate_module
from openltx.pipelines.canvas import on_disk
from openltx.pipelines.fitting import description_of, require_room
from openltx.pipelines.machines import available_memory, machine, measured_rate
from openltx.pipelines.plan import Placement, plan

PROMPT = "a red ball"
LARGE = GenerationRequest(PROMPT, size="768x512", frames=121, steps=20)
HALF = Placement(dtype=torch.bfloat16, is_cpu=True)
GIB = 2**30


def released(size: str, stored: torch.dtype = torch.bfloat16) -> Description:
    return Description(
        name=size,
        transformer=transformer_preset(size),
        vae=vae_preset("0.9.5"),
        schedule=Schedule(),
        sampling={},
        stored=stored,
    )


@pytest.mark.parametrize(
    "wishes",
    [
        {"cfg": 1.0},
        {"cfg": 2.0},
        {"cfg": 2.0, "stg": 1.0, "skip_blocks": (1,)},
        {"cfg": (1.0, 3.0), "guidance_times": (0.9, 0.0), "times": (1.0, 0.95, 0.5)},
        {"last_step": "decoder", "decode_timestep": 0.2, "steps": 6},
    ],
    ids=str,
)
def test_the_passes_are_those_that_are_made(
    tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, object]
) -> None:
    rows = 0
    step = VideoTransformer.step

    def counted(model: VideoTransformer, tokens: torch.Tensor, *arguments: object) -> torch.Tensor:
        nonlocal rows
        rows += len(tokens)
        return step(model, tokens, *arguments)

    monkeypatch.setattr(VideoTransformer, "step", counted)
    request = replace(GenerationRequest(PROMPT, seed=1), **wishes)
    Generator(tiny_model)(request)
    stages = plan(description_of(tiny_model), request, Placement(dtype=torch.float32, is_cpu=True), "resident").stages
    assert [stage.name for stage in stages] == ["read prompt", "prepare", f"denoise, {rows} passes", "decode"]


def test_a_header_says_what_the_loaded_model_says(tiny_model: LTXModel, tiny_checkpoint: Path) -> None:
    assert describe(tiny_checkpoint) == replace(description_of(tiny_model), stored=torch.float32)


def test_a_mapped_file_is_not_memory_but_converted_weights_are() -> None:
    mapped = plan(released("13b"), LARGE, HALF, "resident").stages
    converted = plan(released("13b", torch.float8_e4m3fn), LARGE, HALF, "resident").stages
    assert converted[1].weights - mapped[1].weights == 2 * 13_042_569_344
    streamed = plan(released("13b", torch.float8_e4m3fn), LARGE, HALF, "streamed").stages
    assert streamed[1].weights < 2 * GIB


def test_each_residency_takes_less_than_the_one_before() -> None:
    there = Placement(dtype=torch.bfloat16, is_cpu=False)
    peaks = [plan(released("13b"), LARGE, there, name).peak for name in ("resident", "offloaded", "streamed")]
    assert peaks[0] > peaks[1] > peaks[2]
    assert 27 * GIB < peaks[0] < 36 * GIB


def test_operations_are_those_of_the_published_count() -> None:
    """2B at 768x512, 121 frames: 29.1 TFLOP for one pass; 13B: 169."""
    for size, teraflops in (("2b", 29.1), ("13b", 169)):
        stages = plan(released(size), replace(LARGE, steps=1, cfg=1.0), HALF, "resident").stages
        assert stages[2].flops / 1e12 == pytest.approx(teraflops, rel=0.02)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    there = Placement(dtype=torch.bfloat16, is_cpu=False)
    require_room(released("13b"), LARGE, there, "resident", 80 * GIB)
    with pytest.raises(RequestError, match=r"GiB are free.*--residency streamed"):
        require_room(released("13b"), LARGE, there, "resident", 16 * GIB)
    require_room(released("13b"), LARGE, there, "streamed", 16 * GIB)
    with pytest.raises(RequestError, match=r"--precision bfloat16") as refused:
        require_room(released("2b"), LARGE, replace(there, dtype=torch.float32), "resident", 12 * GIB)
    assert "--residency offloaded" in str(refused.value)


def test_a_long_video_that_does_not_fit_is_told_how_long_or_large_it_may_be() -> None:
    huge = GenerationRequest(PROMPT, size="3840x2176", frames=257, steps=20)
    with pytest.raises(RequestError, match=r"--size \d+x\d+.*--frames \d+"):
        require_room(released("2b"), huge, HALF, "streamed", 10 * GIB)


def test_tiles_are_chosen_only_if_memory_needs_them(tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch) -> None:
    request = GenerationRequest(PROMPT, size="384x384", frames=9, steps=1, cfg=1.0, seed=1)
    generator = Generator(tiny_model)
    prepared = generator.prepare(request)
    assert prepared.request.tile == 0
    known, place = description_of(tiny_model), Placement(dtype=torch.float32, is_cpu=True)
    stages = plan(known, replace(request, tile=256), place, "resident").stages
    monkeypatch.setattr(fitting, "available_memory", lambda _: max(stage.working for stage in stages))
    tiled = generator.prepare(request)
    assert tiled.request.tile == 256
    *_, last = generator.sample(tiled)
    frames = generator.decode(tiled, last.state)
    assert frames.shape == (9, 384, 384, 3)
    whole = generator.decode(prepared, last.state).astype(float)
    assert 0 < np.abs(frames - whole).mean() < 8
    monkeypatch.setattr(fitting, "available_memory", lambda _: 1000)
    with pytest.raises(RequestError, match="beside the weights"):
        generator.prepare(request)


def test_tiles_that_are_asked_for_are_used(tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr(generate_module, "on_disk", lambda shape: shapes.append(tuple(shape)) or on_disk(shape))
    video = Generator(tiny_model)(GenerationRequest(PROMPT, size="256x160", tile=128, steps=1, seed=1))
    assert video.frames.shape == (9, 160, 256, 3)
    assert video.request.tile == 128
    assert shapes == [(9, 1, 3, 160, 256)]


def test_a_canvas_on_disk_is_zeros_that_can_be_written() -> None:
    canvas = on_disk((2, 3))
    assert torch.equal(canvas, torch.zeros(2, 3))
    canvas += 1
    assert float(canvas.sum()) == 6


def test_this_machine_has_memory_and_a_rate() -> None:
    assert 2**20 < available_memory(torch.device("cpu")) < 2**50
    assert measured_rate(torch.float32, seconds=0.01) > 1e8
    assert machine("h100", torch.bfloat16).memory == 80 * 10**9
    with pytest.raises(RequestError, match=r"here, h100, 4090, m4-max"):
        machine("h200", torch.bfloat16)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\nfile 500000\n")
    assert available_memory(torch.device("cpu")) == 700000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(torch.device("cpu")) > 700000
