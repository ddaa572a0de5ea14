"""The redundancy study: its measures on latents whose redundancy is known, its pictures, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.cli import main
from openltx.data.datasets import ClipBatches, Draw, Stage
from openltx.eval.latent_plots import correlation_matrices, explained_variance, paint
from openltx.eval.latents import (
    ChannelUse,
    channel_use,
    components_for,
    describe,
    effective_rank,
    spectrum,
    to_markdown,
)
from openltx.media.io import read_image
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.training.config import OptimConfig, as_json
from openltx.training.export import trained_vae
from openltx.training.state import Checkpoint, save_checkpoint
from openltx.training.vae import VAELossConfig, VAETask, new_autoencoder

POSITIONS = 4000


def use_of(samples: np.ndarray, noise: float = 0.01) -> ChannelUse:
    """The study of given latents (n c)."""
    channels = samples.shape[1]
    covariance = np.cov(samples, rowvar=False)
    return ChannelUse(name="x", positions=len(samples), covariance=covariance, noise=np.full(channels, noise))


def isotropic(channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((POSITIONS, channels))


def test_isotropic_noise_has_the_effective_rank_of_its_dimension_and_no_correlation() -> None:
    assert effective_rank(np.ones(16)) == pytest.approx(16)
    found = describe(use_of(isotropic(16)))
    assert found["effective_rank"] == pytest.approx(16, abs=0.1)
    assert found["mean_correlation"] < 0.03
    assert found["components_90"] == 15
    assert found["dead_channels"] == 0


def test_a_single_direction_has_rank_one_and_a_constant_code_rank_zero() -> None:
    line = isotropic(1) * np.array([1.0, -2.0, 3.0])
    assert describe(use_of(line))["effective_rank"] == pytest.approx(1, abs=1e-6)
    assert describe(use_of(line))["components_99"] == 1
    assert describe(use_of(np.ones((10, 3))))["effective_rank"] == 0


def test_a_duplicated_channel_is_seen_as_redundant() -> None:
    x = isotropic(8)
    found = describe(use_of(np.concatenate([x, x[:, :1]], axis=1)))
    assert found["channels"] == 9
    assert found["effective_rank_normalised"] < 8.7
    assert found["components_99"] == 8
    assert found["largest_correlation"] == pytest.approx(1)


def test_scaling_a_channel_changes_the_rank_but_not_that_of_normalised_channels() -> None:
    x = isotropic(8)
    scaled = x * np.array([100.0] + [1.0] * 7)
    assert describe(use_of(scaled))["effective_rank"] < 1.1
    normal, same = (describe(use_of(values))["effective_rank_normalised"] for values in (x, scaled))
    assert same == pytest.approx(normal)


def test_dead_channels_are_those_that_drown_in_the_posteriors_noise() -> None:
    x = isotropic(5) * np.sqrt([1.0, 0.011, 0.009, 1e-6, 0.0])
    found = describe(use_of(x, noise=1.0))
    assert found["dead"] == [2, 3, 4]
    assert found["dead_channels"] == 3
    assert describe(use_of(x, noise=0.1))["dead"] == [3, 4]
    assert np.isfinite(found["mean_correlation"])


def test_explained_variance_rises_to_one_and_components_are_counted_on_it() -> None:
    explained = use_of(isotropic(4) * np.array([3.0, 1.0, 1.0, 1.0])).explained
    assert (np.diff(explained) > 0).all()
    assert explained[-1] == pytest.approx(1)
    assert components_for(0.5, np.array([0.5, 0.8, 1.0])) == 1
    assert components_for(0.6, np.array([0.5, 0.8, 1.0])) == 2
    assert components_for(1.0, np.array([0.5, 0.8, 1.0])) == 3


def test_the_statistics_are_those_of_every_latent_position_of_every_clip() -> None:
    vae = new_autoencoder(vae_preset("tiny"), seed=0).eval()
    videos = [torch.rand(3, 9, 32, 64) * 2 - 1, torch.rand(3, 1, 32, 32) * 2 - 1]
    use = channel_use("tiny", vae, videos)
    with torch.inference_mode():
        means = torch.cat([vae.encoder(video[None]).mean[0].flatten(1) for video in videos], dim=1)
    assert use.positions == 2 * 1 * 2 + 1
    np.testing.assert_allclose(use.covariance, torch.cov(means.double()).numpy(), rtol=1e-4)
    np.testing.assert_allclose(use.noise, np.exp(-5), rtol=1e-4)  # the start of the log-variance
    assert np.trace(use.covariance) == pytest.approx(spectrum(use.covariance).sum())


def test_few_positions_are_said_to_be_few() -> None:
    report = {"clips": 1, "checkpoints": [describe(use_of(isotropic(4)[:39])), describe(use_of(isotropic(4)[:40]))]}
    report["checkpoints"][0]["name"] = "short"
    assert "Of short there are fewer than 10" in to_markdown(report)


def test_correlations_are_painted_from_blue_over_white_to_red() -> None:
    colours = paint(np.array([[1.0, 0.0], [-1.0, 0.5]]))
    assert tuple(colours[0, 1]) == (255, 255, 255)
    assert colours[0, 0, 0] > colours[0, 0, 2]
    assert colours[1, 0, 2] > colours[1, 0, 0]
    assert colours[1, 1, 1] > colours[0, 0, 1]


def test_every_checkpoint_has_its_curve_and_its_matrix() -> None:
    uses = [use_of(isotropic(8, seed) * np.linspace(0.1, 1, 8) ** seed) for seed in range(6)]
    curves = [np.asarray(explained_variance(uses[:count])) for count in (1, 6)]
    assert curves[0].shape == curves[1].shape
    assert (curves[0] != curves[1]).any()
    one, six = (correlation_matrices(uses[:count]) for count in (1, 6))
    assert six.width > 3 * one.width
    assert six.height > 1.5 * one.height


@pytest.fixture(scope="module")
def run_folder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the VAE with two checkpoints, whose averaged weights differ from each other and from the raw ones."""
    out = tmp_path_factory.mktemp("runs") / "tiny-run"
    task = VAETask(
        model=new_autoencoder(vae_preset("tiny"), seed=0),
        data=ClipBatches(clip_folder, (Stage(until=9, draws=(Draw(clips=1, frames=9),)),), seed=0),
        heldout=[],
        losses=VAELossConfig(),
        optim=OptimConfig(lr=1e-3),
    )
    for step in (1, 20):
        raw, average = (new_autoencoder(vae_preset("tiny"), seed=step + extra).state_dict() for extra in (1, 2))
        settings = {"task": task.name, "settings": as_json(task.settings)}
        checkpoint = Checkpoint(step=step, seconds=0.0, settings=settings, module=raw, ema=average, optimizer={})
        save_checkpoint(out, checkpoint, keep_last=2)
    (out / "run.json").write_text("{}")
    return out


def test_a_checkpoint_gives_back_the_averaged_vae_without_being_told_its_architecture(run_folder: Path) -> None:
    vae = trained_vae(run_folder / "checkpoints" / "step_00000020")
    assert isinstance(vae, VideoAutoencoder)
    assert vae.config == vae_preset("tiny")
    expected = new_autoencoder(vae_preset("tiny"), seed=22).state_dict()
    torch.testing.assert_close(vae.state_dict(), expected)


def test_the_command_compares_files_and_all_checkpoints_of_a_run(
    tiny_checkpoint: Path, run_folder: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = run_folder / "checkpoints" / "step_00000020"
    words = ["eval", "latents", "--checkpoints", str(tiny_checkpoint), str(run_folder), str(newest)]
    words += ["--data", str(clip_folder), "-n", "2", "--frames", "9", "--out", str(tmp_path)]
    assert main(words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    found = report["checkpoints"]
    assert [one["name"] for one in found] == [
        "tiny",
        "tiny-run step_00000001",
        "tiny-run step_00000020",
        "tiny-run step_00000020",
    ]
    assert {one["positions"] for one in found} == {2 * 2 * 1 * 2}
    assert found[2] == found[3]
    assert found[1]["explained_variance"] != found[2]["explained_variance"]
    assert "| tiny-run step_00000001 | 16 |" in capsys.readouterr().out
    for name in ("explained_variance.png", "correlation.png"):
        assert read_image(tmp_path / name).shape[1] > 200


def test_what_holds_no_vae_is_named(clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["eval", "latents", "--data", str(clip_folder), "-n", "1", "--checkpoints", str(tmp_path)]
    (tmp_path / "run.json").write_text('{"task": "flow", "settings": {"model": {}}}')
    assert main(line) == 2
    assert "holds no checkpoint yet" in capsys.readouterr().err
    (tmp_path / "state.json").write_text("{}")
    assert main(line) == 2
    assert "does not say which VAE it holds" in capsys.readouterr().err
