"""``openltx train ablation``, with a tiny experiment."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openltx.cli import main
from openltx.data.datasets import Draw, Stage
from openltx.models.presets import vae_preset
from openltx.recipes import ablations
from openltx.recipes.ablations import EXPERIMENTS, Arm, Experiment
from openltx.recipes.vae import VAERecipe
from openltx.training.config import OptimConfig
from openltx.training.vae import VAELossConfig

PLAIN = VAERecipe(
    model=vae_preset("tiny"),
    stages=(Stage(until=9, draws=(Draw(clips=1, frames=9),)),),
    losses=VAELossConfig(lpips=0.0),
    optim=OptimConfig(lr=1e-3),
    steps=2,
)
TINY = Experiment(
    question="Do wavelets matter?",
    paper="2.1.5",
    arms=(
        Arm(name="with DWT", recipe=PLAIN),
        Arm(name="plain, t = 0", recipe=replace(PLAIN, losses=VAELossConfig(lpips=0.0, dwt=0.0)), t=0.0),
    ),
)


def run(*words: str | Path) -> int:
    return main(["train", "ablation", *map(str, words)])


def test_arms_are_trained_measured_and_compared_once(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablations, "EXPERIMENTS", {"tiny": TINY})
    words = ("tiny", "--data", clip_folder, "--out", tmp_path, "--clips", "1", "--frames", "9", "--seeds", "0", "1")
    assert run(*words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["seeds"] == [0, 1]
    assert set(report["arms"]) == {"with DWT", "plain, t = 0"}
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("with-DWT/seed*/result.json"))]
    mean, spread = report["arms"]["with DWT"]["psnr"]
    assert mean == pytest.approx(sum(result["psnr"] for result in results) / 2)
    assert spread == pytest.approx(abs(results[0]["psnr"] - results[1]["psnr"]) / 2)
    assert report["arms"]["with DWT"]["lpips_vgg"] is None or report["arms"]["with DWT"]["lpips_vgg"][0] > 0
    assert (tmp_path / "hardest.png").stat().st_size > 1000
    assert "Do wavelets matter?" in (tmp_path / "report.md").read_text()

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed*/metrics.jsonl")}
    capsys.readouterr()
    assert run(*words) == 0  # nothing is trained again
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed*/metrics.jsonl")}


def test_an_unknown_experiment_and_a_missing_base_are_named(
    clip_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("colour", "--data", clip_folder, "--out", tmp_path) == 2
    assert "critic, wavelets" in capfd.readouterr().err
    assert run("critic", "--data", clip_folder, "--out", tmp_path) == 2
    assert "--base" in capfd.readouterr().err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_arms_of_an_experiment_differ_in_their_recipe_and_share_data_and_length(name: str) -> None:
    first, *others = EXPERIMENTS[name].arms
    for other in others:
        assert other.recipe != first.recipe
        assert (other.recipe.stages, other.recipe.steps) == (first.recipe.stages, first.recipe.steps)
