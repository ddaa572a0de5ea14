"""``openltx train flow-ablation``: every experiment runs by its one command, made tiny."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openltx.cli import main
from openltx.data.precompute import Precompute, precompute
from openltx.models.bundle import LTXModel
from openltx.models.presets import transformer_preset
from openltx.recipes import flow_ablations
from openltx.recipes.flow_ablations import FLOW_EXPERIMENTS, FlowArm, FlowExperiment

VARIANTS = ("rope_spacing", "rope_positions", "qk_norm", "text_attention")
SAMPLING = {"steps": 2, "cfg": 2.0, "rescale": 0.0, "last_step": "decoder", "decode_timestep": 0.05,
            "decode_noise_scale": 0.025}  # fmt: skip


def run(*words: str | Path) -> int:
    return main(["train", "flow-ablation", *map(str, words)])


@pytest.fixture(scope="module")
def latents(clip_folder: Path, tiny_model: LTXModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Latents to train on, and held-out ones."""
    folder = tmp_path_factory.mktemp("ablation")
    assert tiny_model.text is not None
    settings = Precompute(phrasings=1, mirrored=False)
    for split in ("train", "heldout"):
        precompute(clip_folder, folder / split, tiny_model.vae, tiny_model.text, split=split, settings=settings)
    return folder / "train", folder / "heldout"


def tiny(arm: FlowArm) -> FlowArm:
    """The arm with its variant of a tiny transformer, on tiny batches."""
    given = arm.recipe.transformer
    small = replace(transformer_preset("tiny"), **{name: getattr(given, name) for name in VARIANTS})
    flow = replace(arm.recipe.flow, tokens_per_batch=24)
    recipe = replace(arm.recipe, transformer=small, flow=flow, accumulate=1, sampling=SAMPLING)
    return replace(arm, recipe=recipe)


@pytest.mark.parametrize("name", [name for name, found in FLOW_EXPERIMENTS.items() if found.arms[0].trains])
def test_every_experiment_trains_and_compares_its_arms(
    name: str,
    latents: tuple[Path, Path],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = FLOW_EXPERIMENTS[name]
    small = replace(experiment, arms=tuple(map(tiny, experiment.arms)))
    monkeypatch.setattr(flow_ablations, "FLOW_EXPERIMENTS", {name: small})
    train, heldout = latents
    count = experiment.num_sources
    words = [name, "--vae", *[tiny_checkpoint] * count, "--latents", *[train] * count, "--heldout", *[heldout] * count]
    assert run(*words, "--out", tmp_path, "--seeds", "0", "--steps", "2") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["arms"]) == {arm.name for arm in experiment.arms}
    assert all(row["held_out"][0] > 0 and row["tokens_per_second"][0] > 0 for row in report["arms"].values())
    assert (tmp_path / "curves.png").exists()
    assert experiment.question in (tmp_path / "report.md").read_text()


def test_the_last_step_is_compared_on_a_trained_model_with_judges(
    clip_folder: Path,
    latents: tuple[Path, Path],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = FLOW_EXPERIMENTS["last-step"]
    small = replace(experiment, arms=tuple(map(tiny, experiment.arms)))
    monkeypatch.setattr(flow_ablations, "FLOW_EXPERIMENTS", {"last-step": small})
    words = ["last-step", "--vae", tiny_checkpoint, "--latents", latents[0], "--heldout", latents[1], "--out", tmp_path]
    assert run(*words) == 2  # no base
    judged = ["--base", tiny_checkpoint, "--prompts", "1", "--data", clip_folder, "--seeds", "0"]
    assert run(*words, *judged) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert all(0 <= row["colour"][0] <= 1 for row in report["arms"].values())
    first = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed0/result.json")}
    assert run(*words, *judged) == 0  # nothing is measured again
    assert first == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed0/result.json")}


def test_an_arm_that_diverges_is_a_result(
    latents: tuple[Path, Path], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = tiny(FLOW_EXPERIMENTS["optimizer"].arms[1])
    wild = replace(calm, name="wild", recipe=replace(calm.recipe, optim=replace(calm.recipe.optim, lr=1e30, warmup=0)))
    experiment = FlowExperiment(question="How fast?", paper="no section", arms=(calm, wild))
    monkeypatch.setattr(flow_ablations, "FLOW_EXPERIMENTS", {"speed": experiment})
    words = ("speed", "--vae", tiny_checkpoint, "--latents", latents[0], "--heldout", latents[1], "--out", tmp_path)
    assert run(*words, "--seeds", "0", "--steps", "4") == 0
    assert "wild (1 diverged)" in (tmp_path / "report.md").read_text()


def test_an_unknown_experiment_and_missing_sources_are_named(
    latents: tuple[Path, Path], tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--vae", tiny_checkpoint, "--latents", latents[0], "--heldout", latents[1], "--out", tmp_path)
    assert run("colour", *words) == 2
    assert "rope-spacing, positions" in capfd.readouterr().err
    assert run("patchifier", *words) == 2
    assert "needs 2 of each" in capfd.readouterr().err


@pytest.mark.parametrize("name", FLOW_EXPERIMENTS)
def test_arms_share_steps_and_batches_and_differ_in_something(name: str) -> None:
    first, *others = FLOW_EXPERIMENTS[name].arms
    for other in others:
        assert (other.recipe, other.sampling, other.source) != (first.recipe, first.sampling, first.source)
        assert (other.recipe.steps, other.recipe.accumulate) == (first.recipe.steps, first.recipe.accumulate)
        assert other.recipe.flow.tokens_per_batch == first.recipe.flow.tokens_per_batch
