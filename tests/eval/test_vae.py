"""The VAE's evaluation, with random weights and stand-ins whose result is known."""

import json
from pathlib import Path

import pytest
import torch

from openltx.cli import main
from openltx.data.manifest import read_manifest
from openltx.eval import vae as evaluation
from openltx.models.bundle import LTXModel
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder


class Perfect(VideoAutoencoder):
    """Gives back what it is given, and notes how it was asked."""

    def __init__(self) -> None:
        super().__init__(vae_preset("tiny"))
        self.asked: list[tuple] = []

    def encode(self, video, generator=None):  # noqa: ARG002 (the signature of what it stands for)
        return video

    def decode(self, latents, t=None, noise_scale=None, tone_map=0.0, generator=None):  # noqa: ARG002 (as above)
        self.asked.append((t, noise_scale, generator.initial_seed()))
        return latents


def test_a_perfect_autoencoder_gets_the_best_marks_and_is_asked_as_stated(clip_folder: Path) -> None:
    vae, clips = Perfect(), read_manifest(clip_folder, "heldout")
    settings = evaluation.Settings(t=0.1, noise_scale=0.02)
    results = evaluation.evaluate(vae, clip_folder, clips, settings)
    report = evaluation.summarise(results, settings, "perfect")
    assert report["psnr"] > 100
    assert report["ssim"] == pytest.approx(1)
    assert report["lpips_alex"] is None
    assert [asked[:2] for asked in vae.asked] == [(0.1, 0.02)] * len(clips)
    assert len({seed for _, _, seed in vae.asked}) == len(clips)


def test_results_do_not_depend_on_the_other_clips(tiny_model: LTXModel, clip_folder: Path) -> None:
    clips = read_manifest(clip_folder, "heldout")
    both = evaluation.evaluate(tiny_model.vae, clip_folder, clips, evaluation.Settings())
    first = evaluation.evaluate(tiny_model.vae, clip_folder, clips[:1], evaluation.Settings())
    assert both[0].similarity == first[0].similarity


def test_clips_are_cut_to_the_grid(clip_folder: Path) -> None:
    path = clip_folder / read_manifest(clip_folder)[1].path
    assert len(evaluation.clip_frames(path, None)) == 25
    assert len(evaluation.clip_frames(path, 16)) == 9
    assert len(evaluation.clip_frames(path, 1)) == 1


def test_a_vae_without_timestep_is_not_given_one() -> None:
    vae = VideoAutoencoder(vae_preset("0.9.0", base_channels=8, latent_channels=16)).eval()
    video = torch.zeros(3, 1, 32, 32)
    restored = evaluation.reconstruct(vae, video, evaluation.Settings(), torch.Generator())
    assert restored.shape == video.shape


def test_the_command_writes_report_and_pictures(
    tiny_checkpoint: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["eval", "vae", "--split", "heldout", "--model", str(tiny_checkpoint), "--data", str(clip_folder)]
    out = tmp_path / "out"
    assert main([*line, "-n", "2", "--frames", "9", "--json", str(tmp_path / "r.json"), "--out", str(out)]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["clips"] == 2
    assert len(report["psnr_per_frame"]) == 9
    assert report["first_frame"]["psnr"] == pytest.approx(report["psnr_per_frame"][0])
    assert f"| {report['psnr']:.4g} |" in (out / "report.md").read_text()
    assert "| first frame |" in capsys.readouterr().out
    assert (out / "contact_sheet.png").stat().st_size > 1000
    assert main([*line, "-n", "3"]) == 2
    assert "has 2 held-out clips, 3 were asked for" in capsys.readouterr().err
