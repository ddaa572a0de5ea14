"""The VAE's evaluation, with random weights and stand-ins whose result is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openltx.cli import main
from openltx.data.manifest import Clip, read_manifest
from openltx.errors import DataError, RequestError
from openltx.eval import vae as evaluation
from openltx.eval.baseline import Downsampling
from openltx.eval.clips import clips_to_measure, read_on_grid
from openltx.eval.comparison import Networks, Similarity
from openltx.eval.vae_pictures import worth_seeing
from openltx.eval.vae_report import summarise, to_markdown
from openltx.media.io import read_video, write_video
from openltx.models.bundle import LTXModel
from openltx.models.mobilenet import MobileNetV2
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


def similarities(vae: VideoAutoencoder, folder: Path, clips: list[Clip], **settings) -> list[tuple[Similarity, ...]]:
    """Those of each level."""
    found = evaluation.evaluate(vae, folder, clips, evaluation.Settings(**settings))
    return [outcome.similarities for _, outcome in found.levels]


def test_a_perfect_autoencoder_gets_the_best_marks_and_is_asked_as_stated(clip_folder: Path) -> None:
    vae, clips = Perfect(), read_manifest(clip_folder, "heldout")
    settings = evaluation.Settings(t=(0.1,), noise_scale=0.02)
    report = summarise(evaluation.evaluate(vae, clip_folder, clips, settings), settings, "perfect")
    assert (report["t"], report["noise_scale"]) == (0.1, 0.02)
    assert report["psnr"] > 100
    assert report["motion_psnr"] > 100
    assert report["flicker"] == 0
    assert report["ssim"] == pytest.approx(1)
    assert report["lpips_alex"] is report["lpips_vgg"] is report["frechet_mobilenet_v2"] is None
    assert [asked[:2] for asked in vae.asked] == [(0.1, 0.02)] * len(clips)
    assert len({seed for _, _, seed in vae.asked}) == len(clips)


def test_noise_follows_t_unless_it_is_given_and_is_the_same_at_every_level(clip_folder: Path) -> None:
    vae, clips = Perfect(), read_manifest(clip_folder, "heldout")[:1]
    similarities(vae, clip_folder, clips, t=(0.0, 0.05, 0.2))
    assert [asked[:2] for asked in vae.asked] == [(0.0, 0.0), (0.05, 0.05), (0.2, 0.2)]
    assert len({seed for _, _, seed in vae.asked}) == 1
    similarities(vae, clip_folder, clips, t=(0.1, 0.2), noise_scale=0.0)
    assert [asked[:2] for asked in vae.asked[3:]] == [(0.1, 0.0), (0.2, 0.0)]


def test_results_depend_neither_on_the_other_clips_nor_on_the_other_levels(
    tiny_model: LTXModel, clip_folder: Path
) -> None:
    clips = read_manifest(clip_folder, "heldout")
    first, second = similarities(tiny_model.vae, clip_folder, clips, t=(0.05, 0.2), frames=9)
    assert similarities(tiny_model.vae, clip_folder, clips[:1], t=(0.2,), frames=9) == [second[:1]]
    assert first[0] != second[0]


def test_clips_are_cut_to_the_grid(clip_folder: Path, tmp_path: Path) -> None:
    path = clip_folder / read_manifest(clip_folder)[1].path
    assert len(read_on_grid(path, None, (8, 32))) == 25
    assert len(read_on_grid(path, 16, (8, 32))) == 9
    assert len(read_on_grid(path, 1, (8, 32))) == 1
    frames = np.arange(10 * 48 * 70 * 3, dtype=np.uint32).reshape(10, 48, 70, 3).astype(np.uint8)
    write_video(tmp_path / "odd.mp4", frames, 24.0)
    whole, _ = read_video(tmp_path / "odd.mp4")
    np.testing.assert_array_equal(read_on_grid(tmp_path / "odd.mp4", None, (8, 32)), whole[:9, 8:40, 3:67])
    with pytest.raises(DataError, match="70x48"):
        read_on_grid(tmp_path / "odd.mp4", None, (8, 64))


def test_a_vae_without_timestep_is_not_given_one_and_takes_no_levels(clip_folder: Path) -> None:
    vae = VideoAutoencoder(vae_preset("0.9.0", base_channels=8, latent_channels=16)).eval()
    clips = read_manifest(clip_folder, "heldout")[:1]
    settings = evaluation.Settings(frames=1)
    found = evaluation.evaluate(vae, clip_folder, clips, settings)
    assert [level.t for level, _ in found.levels] == [None]
    report = summarise(found, settings, "0.9.0")
    assert report["t"] is report["noise_scale"] is report["flicker"] is None
    assert "| decoder without t |" in to_markdown(report)
    for asked in ({"t": (0.0, 0.1)}, {"noise_scale": 0.1}):
        with pytest.raises(RequestError, match="not conditioned"):
            evaluation.levels_of(vae.config, evaluation.Settings(**asked))


@pytest.mark.parametrize("asked", [{"t": ()}, {"t": (0.1, 1.5)}, {"noise_scale": -0.1}])
def test_impossible_noise_levels_are_refused(asked: dict) -> None:
    with pytest.raises(RequestError, match="between 0 and 1"):
        evaluation.levels_of(vae_preset("tiny"), evaluation.Settings(**asked))


def test_frechet_distances_are_those_of_the_frames_looked_at(clip_folder: Path) -> None:
    network, generator = MobileNetV2(), torch.Generator().manual_seed(0)
    for name, weight in network.features.named_parameters():
        if weight.ndim == 4:  # torch's own start would let the features vanish
            torch.nn.init.kaiming_normal_(network.features.get_parameter(name), generator=generator)
    settings = evaluation.Settings(frames=17, every=8)
    way = Downsampling(time=8.0, ratio=1.0)
    clips, networks = read_manifest(clip_folder, "heldout"), Networks(mobilenet=network)
    found = evaluation.evaluate(Perfect(), clip_folder, clips, settings, networks, downsampling=way)
    report = summarise(found, settings, "perfect")
    assert report["frechet"] == {"samples": 6, "dimensions": 1280, "reduced_dimensions": 0}
    assert report["baseline"]["frechet_mobilenet_v2"] > 0.01
    assert report["frechet_mobilenet_v2"] < 1e-3 * report["baseline"]["frechet_mobilenet_v2"]
    assert report["frechet_mobilenet_v2_reduced"] is None


def test_the_baseline_is_measured_as_the_vae_is(clip_folder: Path) -> None:
    clips, settings = read_manifest(clip_folder, "heldout"), evaluation.Settings(frames=9)
    way = evaluation.search_downsampling(vae_preset("tiny"), clip_folder, clips, settings)
    found = evaluation.evaluate(Perfect(), clip_folder, clips, settings, downsampling=way)
    report = summarise(found, settings, "perfect")
    baseline = report["baseline"]
    assert baseline["numbers"] <= report["latent_numbers"] == 16 * 2 * 1 * 2
    assert report["compression"] == 9 * 32 * 64 * 3 / 64
    assert 5 < baseline["psnr"] < 60 < report["psnr"]
    assert baseline["flicker"] > report["flicker"] == 0
    assert f"| bicubic {'x'.join(map(str, baseline['kept']))} |" in to_markdown(report)


def test_the_hardest_clips_are_shown_first_and_the_others_evenly() -> None:
    psnr = [30.0, 10.0, 25.0, 20.0, 40.0, 35.0, 15.0, 50.0]
    assert worth_seeing(psnr, 4) == [1, 6, 3, 7]
    assert worth_seeing(psnr, 1) == [1]
    assert sorted(worth_seeing(psnr, 99)) == list(range(8))
    assert worth_seeing(psnr, 0) == []


def test_the_command_writes_report_pictures_and_videos(
    tiny_checkpoint: Path,
    clip_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "empty"))
    line = ["eval", "vae", "--model", str(tiny_checkpoint), "--data", str(clip_folder)]
    out = tmp_path / "out"
    asked = ["-n", "3", "--split", "train", "--frames", "9", "--t", "0.05", "0.2", "--baseline", "--videos", "2"]
    assert main([*line, *asked, "--json", str(tmp_path / "r.json"), "--out", str(out)]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["clips"], report["split"], report["t"]) == (3, "train", 0.05)
    assert [level["t"] for level in report["levels"]] == [0.05, 0.2]
    assert report["psnr"] == report["levels"][0]["psnr"] != report["levels"][1]["psnr"]
    assert len(report["psnr_per_frame"]) == 9
    assert report["first_frame"]["psnr"] == pytest.approx(report["psnr_per_frame"][0])
    assert f"| {report['psnr']:.4g} |" in (out / "report.md").read_text()
    printed = capsys.readouterr().out
    assert "| first frame |" in printed
    assert "openltx assets pull lpips" in printed
    assert "openltx assets pull mobilenet-v2" in printed
    assert (out / "contact_sheet.png").stat().st_size > 1000
    frames, fps = read_video(sorted((out / "videos").iterdir())[0])
    assert frames.shape == (9, 32, 3 * 64, 3)
    assert fps == 24
    assert len(list((out / "videos").iterdir())) == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["-n", "3"], "has 2 held-out clips, 3 were asked for"),
        (["-n", "7", "--split", "train"], "has 6 training clips, 7 were asked for"),
        (["--t", "2"], "between 0 and 1"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    asked: list[str], message: str, tiny_checkpoint: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "vae", "--model", str(tiny_checkpoint), "--data", str(clip_folder), *asked]) == 2
    assert message in capsys.readouterr().err


def test_training_clips_need_a_folder() -> None:
    with pytest.raises(DataError, match="--data"):
        clips_to_measure(1, split="train")
