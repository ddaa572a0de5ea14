"""What an upscaler makes of latents and of videos, without a transformer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import openltx
from openltx import CheckpointError, LTXModel, MediaError, RequestError
from openltx.checkpoints import save_upsampler
from openltx.media.io import read_metadata, write_video
from openltx.media.transforms import to_frames, to_tensor
from openltx.models.upsampler import LatentUpsampler, UpsamplerConfig
from openltx.pipelines.upscale import enlarge

Files = dict[str, Path]


def noise(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 255, (frames, height, width, 3)).astype(np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", noise(9, 32, 64), 8.0)
    return tmp_path / "clip.mp4"


@torch.no_grad()
def test_latents_are_enlarged_unnormalised_and_get_their_statistics_back(
    tiny_model: LTXModel, upscaler_files: Files
) -> None:
    vae = tiny_model.vae
    before = {name: tensor.clone() for name, tensor in vae.per_channel_statistics.state_dict().items()}
    try:
        vae.per_channel_statistics.mean.copy_(torch.randn(16))
        vae.per_channel_statistics.std.copy_(torch.rand(16) + 0.5)
        upscaler = openltx.load_upscaler(upscaler_files["space"], vae)
        z = torch.randn(1, 16, 3, 2, 3)
        mean, std = (x.view(1, 16, 1, 1, 1) for x in (vae.per_channel_statistics.mean, vae.per_channel_statistics.std))
        expected = (upscaler.network(z * std + mean) - mean) / std
        torch.testing.assert_close(enlarge(upscaler, vae, z, adain_factor=0.0), expected, rtol=1e-4, atol=1e-4)
        for channel in range(16):
            x = expected[0, channel]
            expected[0, channel] = (x - x.mean()) / x.std() * z[0, channel].std() + z[0, channel].mean()
        torch.testing.assert_close(enlarge(upscaler, vae, z), expected, rtol=1e-4, atol=1e-4)
    finally:
        vae.per_channel_statistics.load_state_dict(before)


@pytest.mark.parametrize(
    ("kind", "shape", "fps"),
    [("space", (9, 64, 128, 3), 8.0), ("time", (17, 32, 64, 3), 16.0), ("both", (17, 64, 128, 3), 16.0)],
)
def test_a_video_becomes_larger_or_smoother_and_lasts_as_long(
    tiny_model: LTXModel, upscaler_files: Files, clip: Path, kind: str, shape: tuple[int, ...], fps: float
) -> None:
    upscaler = openltx.load_upscaler(upscaler_files[kind], tiny_model.vae)
    larger = openltx.upscale(tiny_model.vae, upscaler, clip, seed=1)
    assert (larger.frames.shape, larger.fps) == (shape, fps)
    assert (len(larger.frames) - 1) / larger.fps == (9 - 1) / 8
    slow = openltx.upscale(tiny_model.vae, upscaler, clip, fps=8.0, seed=1)
    assert slow.fps == 8
    assert np.array_equal(slow.frames, larger.frames)


@torch.no_grad()
def test_the_frames_are_the_enlarged_latents_decoded(tiny_model: LTXModel, upscaler_files: Files, clip: Path) -> None:
    vae = tiny_model.vae
    upscaler = openltx.load_upscaler(upscaler_files["space"], vae)
    pixels = to_tensor(openltx.media.io.read_video(clip)[0])[None]
    generator = torch.Generator().manual_seed(3)
    expected = vae.decode(enlarge(upscaler, vae, vae.encode(pixels)), 0.1, 0.05, generator=generator)
    larger = openltx.upscale(vae, upscaler, clip, decode_timestep=0.1, decode_noise_scale=0.05, seed=3)
    assert np.abs(larger.frames.astype(int) - to_frames(expected[0])).max() <= 1


def test_a_size_off_the_grid_is_refused_or_padded_and_cut_back(
    tiny_model: LTXModel, upscaler_files: Files, tmp_path: Path
) -> None:
    write_video(tmp_path / "odd.mp4", noise(12, 34, 50), 8.0)
    upscaler = openltx.load_upscaler(upscaler_files["space"], tiny_model.vae)
    with pytest.raises(RequestError, match="frames=12"):
        openltx.upscale(tiny_model.vae, upscaler, tmp_path / "odd.mp4")
    assert openltx.upscale(tiny_model.vae, upscaler, tmp_path / "odd.mp4", fit="pad").frames.shape == (9, 68, 100, 3)


def test_a_picture_is_a_video_of_one_frame(tiny_model: LTXModel, upscaler_files: Files, tmp_path: Path) -> None:
    Image.fromarray(noise(1, 32, 64)[0]).save(tmp_path / "a.jpg")
    upscaler = openltx.load_upscaler(upscaler_files["space"], tiny_model.vae)
    larger = openltx.upscale(tiny_model.vae, upscaler, tmp_path / "a.jpg")
    assert larger.frames.shape == (1, 64, 128, 3)
    assert larger.save(tmp_path / "b.png") == [tmp_path / "b.png"]


def test_the_file_says_how_it_was_made(tiny_model: LTXModel, upscaler_files: Files, clip: Path, tmp_path: Path) -> None:
    upscaler = openltx.load_upscaler(upscaler_files["time"], tiny_model.vae)
    larger = openltx.upscale(tiny_model.vae, upscaler, clip, seed=5)
    larger.save(tmp_path / "larger.mp4")
    metadata = read_metadata(tmp_path / "larger.mp4")
    assert (metadata["upscaler"], metadata["seed"], metadata["upscaled"]) == ("time", "5", str(clip))
    assert len(upscaler.fingerprint) == 16
    assert metadata["upscaler_fingerprint"] == upscaler.fingerprint


def test_an_upscaler_of_another_family_is_refused(tiny_model: LTXModel, tmp_path: Path) -> None:
    save_upsampler(tmp_path / "up.safetensors", LatentUpsampler(UpsamplerConfig(in_channels=8, mid_channels=32)))
    with pytest.raises(CheckpointError, match=r"latents of 8 channels, and this model's have 16"):
        openltx.load_upscaler(tmp_path / "up.safetensors", tiny_model.vae)


def test_a_missing_video_is_named(tiny_model: LTXModel, upscaler_files: Files) -> None:
    upscaler = openltx.load_upscaler(upscaler_files["space"], tiny_model.vae)
    with pytest.raises(MediaError, match=r"no file .*nothing\.mp4"):
        openltx.upscale(tiny_model.vae, upscaler, "nothing.mp4")
