"""The paper's Table 1, from the networks themselves."""

import json
from pathlib import Path

import pytest
import torch

from openltx.cli import main
from openltx.eval.specs import measure
from openltx.eval.specs.architectures import ARCHITECTURES, Architecture
from openltx.eval.specs.table import Specs, specs_of, to_markdown
from openltx.geometry import VideoShape
from openltx.models import cost
from openltx.models.presets import transformer_preset

pytest.importorskip("diffusers")

PAPER = VideoShape(frames=121, height=512, width=768, fps=24.0)
NAMED = {"LTX-Video": 0.02, "Movie Gen": 0.05, "HunyuanVideo": 0.05, "Pyramid Flow": 0.05}
"""How far parameters may be from the rounded figure; CogVideoX's are names, 2B and 5B for 1.69 and 5.57 billion."""


@pytest.fixture(scope="module")
def found() -> list[tuple[Architecture, Specs]]:
    return [(architecture, specs_of(architecture, PAPER)) for architecture in ARCHITECTURES]


def test_every_entry_is_that_of_the_paper(found: list[tuple[Architecture, Specs]]) -> None:
    for architecture, specs in found:
        paper = architecture.paper
        assert (specs.width, specs.blocks) == (paper.width, paper.blocks), specs.name
        assert ((specs.space, specs.time), specs.channels) == (paper.vae, paper.channels), specs.name
        assert (specs.compression, specs.patch) == (paper.compression, paper.patch), specs.name
        assert (specs.pixels_per_token, specs.attention) == (paper.pixels_per_token, paper.attention), specs.name
        assert specs.parameters / 1e9 == pytest.approx(paper.parameters, rel=NAMED.get(specs.name, 0.2)), specs.name


def test_ltx_video_is_counted_as_the_plan_counts_it(found: list[tuple[Architecture, Specs]]) -> None:
    specs, config = found[0][1], transformer_preset("2b")
    assert specs.parameters == cost.transformer_parameters(config)
    assert specs.tokens == 16 * 16 * 24
    n, d = specs.tokens, config.width
    assert specs.flops == config.num_layers * (28 * n * d**2 + 4 * n**2 * d + 4 * n * 256 * d)


def test_joint_blocks_are_counted_as_by_hand(found: list[tuple[Architecture, Specs]]) -> None:
    specs = {s.name: s for _, s in found}["CogVideoX-2B"]
    n, d, text = specs.tokens, 1920, 256
    assert n == 31 * 32 * 48
    once = 2 * 512 * 12 * d  # the embedding of t, for both of a block's norms
    assert specs.flops == 30 * (24 * (n + text) * d**2 + 4 * (n + text) ** 2 * d + once)


def test_the_table_shows_the_papers_figure_where_it_reads_differently(found: list[tuple[Architecture, Specs]]) -> None:
    architectures, specs = zip(*found, strict=True)
    text = to_markdown(specs, architectures, PAPER)
    assert "| parameters | 1.92B (1.9B) |" in text
    assert "| compression | 1:192 | 1:96 | 1:48 | 1:96 | 1:48 | 1:48 |" in text
    assert "8x8x8, 16 *" in text
    assert "| tokens per second of video | 1219 |" in text


def test_a_block_of_each_runs(found: list[tuple[Architecture, Specs]]) -> None:
    small = [
        architecture
        for architecture in ARCHITECTURES
        if architecture.name in ("LTX-Video", "Pyramid Flow", "CogVideoX-2B")
    ]
    shape = VideoShape(frames=9, height=64, width=64, fps=24.0)
    times = list(measure.measure(small, shape, torch.bfloat16, repeats=1))
    assert [(t.model, t.tokens, t.count) for t in times] == [
        ("LTX-Video", 2 * 2 * 2, 28), ("Pyramid Flow", 2 * 4 * 4, 24), ("CogVideoX-2B", 3 * 4 * 4, 30),
    ]  # fmt: skip
    assert all(t.seconds > 0 and t.flops > 0 for t in times)


def test_random_weights_give_finite_numbers_in_every_kind_of_block() -> None:
    for architecture in ARCHITECTURES:
        if architecture.name in ("Movie Gen", "HunyuanVideo", "CogVideoX-5B"):  # too large for a test
            continue
        with torch.device("meta"):
            transformer = architecture.transformer()
        for blocks in architecture.blocks:
            meta = measure.blocks_of(transformer, blocks)[0]
            block = measure.with_random_weights(meta, torch.float32)
            out = block(*blocks.inputs(8, 4, measure.width_of(meta)))
            for tensor in out if isinstance(out, tuple) else (out,):
                assert tensor.isfinite().all()


def test_the_command_writes_the_table_and_the_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["eval", "specs", "--models", "LTX-Video", "--measure", "--size", "64x64", "--frames", "9"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["models"][0]["paper"]["blocks"] == report["models"][0]["blocks"] == 28
    assert report["measured"]["blocks"][0]["tokens"] == 8
    assert "One block at 64x64, 9 frames, bfloat16" in capsys.readouterr().out


def test_unknown_models_and_sizes_off_the_grid_are_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "specs", "--models", "Sora"]) == 2
    assert "Possible: LTX-Video" in capsys.readouterr().err
    assert main(["eval", "specs", "--size", "100x100"]) == 2
    assert "multiples of 32" in capsys.readouterr().err
