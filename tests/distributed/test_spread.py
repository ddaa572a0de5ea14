"""However a run is spread over processes, it is the run of one process, within rounding; also when it moves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openltx.training.state import is_sharded_checkpoint, list_checkpoints, load_weights

SCRIPT = Path(__file__).with_name("spread_run.py")
TWO = ("halves:4:shard", "tokens:4:sequence=2", "rough:2:shard:bf16", "moved:2:shard")
FOUR = (
    "both:4:shard:recompute:sequence=2",
    "moved:4:shard",
    "lora-all:4:lora:shard:sequence=4",
    "flow-all:4:flow:shard:sequence=2",
)
REFUSED = ("2", "alone:6:shard", "2", "odd:1:sequence=3", "2", "broken:6:shard")


def start(*words: str | Path, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def curve(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of all runs, and what those that must fail said."""
    out = tmp_path_factory.mktemp("runs")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = start(out, *TWO, launcher=torchrun)
    assert done.returncode == 0, done.stderr[-3000:]
    shutil.copytree(out / "halves", out / "broken")
    piece = sorted(list_checkpoints(out / "broken")[-1].glob("pieces/*"))[1]
    piece.write_bytes(piece.read_bytes()[:-10])
    done = start(out, "1", "alone:4", "lora-alone:4:lora", "flow-alone:4:flow", "4", *FOUR, *REFUSED)
    return out, done.stderr


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("halves", "alone"),
        ("tokens", "alone"),
        ("both", "alone"),
        ("moved", "alone"),
        ("lora-all", "lora-alone"),
        ("flow-all", "flow-alone"),
    ],
)
def test_a_spread_run_has_the_losses_and_weights_of_one_process(runs: tuple[Path, str], name: str, other: str) -> None:
    out, said = runs
    assert (out / name / "checkpoints").is_dir(), said[-3000:]
    found, expected = curve(out / name), curve(out / other)
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    for one, line in zip(found, expected, strict=True):
        assert one.keys() == line.keys()
        for key, value in line.items():
            assert one[key] == pytest.approx(value, rel=2e-5), (line["step"], key)
    weights, exact = load_weights(out / name), load_weights(out / other)
    assert weights.keys() == exact.keys()
    if "flow" in name:  # Muon makes what is rounding in a gradient of low rank as large as the rest: only losses agree
        return
    for key, tensor in exact.items():
        torch.testing.assert_close(weights[key], tensor, rtol=1e-4, atol=1e-6)


def test_only_sharded_runs_write_in_pieces(runs: tuple[Path, str]) -> None:
    out, _ = runs
    kinds = {name: is_sharded_checkpoint(list_checkpoints(out / name)[-1]) for name in ("alone", "tokens", "both")}
    assert kinds == {"alone": False, "tokens": False, "both": True}
    pieces = list(list_checkpoints(out / "both")[-1].glob("pieces/*"))
    assert len(pieces) == 4
    assert all(path.suffix == ".safetensors" for path in pieces)


def test_gathered_weights_of_bfloat16_stay_near(runs: tuple[Path, str]) -> None:
    out, _ = runs
    for one, line in zip(curve(out / "rough"), curve(out / "alone"), strict=False):
        assert one["tune/loss"] == pytest.approx(line["tune/loss"], rel=0.02)
        assert one["tune/loss"] != line["tune/loss"]
    assert all(tensor.dtype == torch.float32 for tensor in load_weights(out / "rough").values())


def test_what_cannot_be_spread_is_refused(runs: tuple[Path, str]) -> None:
    _, said = runs
    assert "was saved whole and cannot be gone on from in pieces" in said
    assert "2 processes cannot form groups of 3" in said
    assert "pieces is damaged" in said
