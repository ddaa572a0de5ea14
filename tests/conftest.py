"""What many tests share: one thread each, and a tiny model with random weights, as a file and loaded."""

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import openltx
from openltx.checkpoints import save_upsampler
from openltx.checkpoints.config import official_schedule
from openltx.checkpoints.single_file import save_single_file
from openltx.data.manifest import Clip, append_clip
from openltx.data.worlds.playroom.clip import perform, truth_of
from openltx.flow.schedule import Schedule
from openltx.media.io import write_video
from openltx.models.bundle import LTXModel
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.upsampler import LatentUpsampler, UpsamplerConfig
from openltx.models.vae.autoencoder import VideoAutoencoder

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws_every_time() -> None:
    """What a test draws without a seed of its own is the same in every run."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


TINY_SAMPLING = {"frames": 9, "width": 64, "height": 32, "fps": 8.0, "steps": 3, "cfg": 2.0, "last_step": "decoder"}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file in the official layout: random weights, 64x32, 9 frames, 3 steps."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = VideoTransformer(transformer_preset("tiny"))
        vae = VideoAutoencoder(vae_preset("tiny"))
    save_single_file(
        path,
        transformer,
        vae,
        metadata={"openltx.text_encoder": "all-MiniLM-L6-v2", "openltx.sampling": json.dumps(TINY_SAMPLING)},
        scheduler=official_schedule(Schedule()),
        dtype=torch.float32,
    )
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path) -> LTXModel:
    """The model of ``tiny_checkpoint`` on the CPU."""
    return openltx.load(tiny_checkpoint, device="cpu", precision="float32")


@pytest.fixture(scope="session")
def upscaler_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Upscaler files with random weights for the latents of ``tiny_model``: for space, for time, for both."""
    folder = tmp_path_factory.mktemp("upscalers")
    kinds = {"space": (True, False), "time": (False, True), "both": (True, True)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, (spatial, temporal) in kinds.items():
            config = UpsamplerConfig(
                in_channels=16, mid_channels=32, num_blocks_per_stage=1,
                spatial_upsample=spatial, temporal_upsample=temporal,
            )  # fmt: skip
            save_upsampler(folder / f"{name}.safetensors", LatentUpsampler(config), dtype=torch.float32)
    return {name: folder / f"{name}.safetensors" for name in kinds}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of 64x32 with moving squares; captions and truths are those of real Playroom scenes."""
    folder = tmp_path_factory.mktemp("clips")
    for index in range(8):
        frames = np.full((25 if index % 2 else 17, 32, 64, 3), 40 + 10 * index, np.uint8)
        for f, frame in enumerate(frames):
            frame[8:20, f : f + 12] = (200, 30 * index, 60)
        write_video(folder / f"{index}.mp4", frames, 24.0)
        truth = truth_of(perform(5, index), 5, index)
        clip = Clip(
            path=f"{index}.mp4",
            frames=len(frames),
            height=32,
            width=64,
            fps=24.0,
            caption=truth["caption_short"],
            split="heldout" if index >= 6 else "train",
            truth=truth,
        )
        append_clip(folder, clip)
    return folder


@pytest.fixture(scope="session")
def t5_files() -> ModuleType:
    """The module t5_files.py."""
    spec = importlib.util.spec_from_file_location("t5_files", Path(__file__).with_name("t5_files.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
