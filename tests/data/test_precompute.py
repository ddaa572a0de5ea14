"""Precomputed latents: what the encoder says, mirrored twins, resumable, tied to their encoder."""

from pathlib import Path

import pytest
import torch

from openltx.data.datasets import clips_of, read_clip
from openltx.data.latents import LatentFolder, read_examples
from openltx.data.precompute import Precompute, fold, precompute, unfold
from openltx.errors import DataError
from openltx.media.transforms import to_tensor
from openltx.models.bundle import LTXModel
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder


def run(source: Path, out: Path, model: LTXModel, limit: int | None = None, **settings: int) -> None:
    assert model.text is not None
    wanted = Precompute(**{"phrasings": 2, **settings})
    precompute(source, out, model.vae, model.text, settings=wanted, limit=limit)


@torch.no_grad()
def test_examples_hold_the_latents_and_captions_of_clips_and_their_mirrors(
    clip_folder: Path, tmp_path: Path, tiny_model: LTXModel
) -> None:
    run(clip_folder, tmp_path, tiny_model)
    examples = read_examples(tmp_path)
    assert len(examples) == 12  # six training clips, each twice
    video = to_tensor(read_clip(clip_folder, clips_of(clip_folder, "train")[0]))[None]
    for example, seen in zip(examples[:2], (video, video.flip(-1)), strict=True):
        expected = tiny_model.vae.encode(seen)[0]
        assert (example.latents.float() - expected).abs().max() < 0.05 * expected.abs().max()
        assert len(example.captions) == 2
        assert all(caption.shape[1] == 384 and len(caption) > 3 for caption in example.captions)


def test_a_second_run_adds_only_what_is_missing(clip_folder: Path, tmp_path: Path, tiny_model: LTXModel) -> None:
    run(clip_folder, tmp_path, tiny_model, limit=2)
    assert len(read_examples(tmp_path)) == 4
    run(clip_folder, tmp_path, tiny_model)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    run(clip_folder, tmp_path, tiny_model)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == files
    assert len(read_examples(tmp_path)) == 12


def test_latents_of_another_encoder_are_refused(clip_folder: Path, tmp_path: Path, tiny_model: LTXModel) -> None:
    run(clip_folder, tmp_path, tiny_model, limit=1)
    assert tiny_model.text is not None
    other = VideoAutoencoder(vae_preset("tiny")).eval()
    with pytest.raises(DataError, match="another encoder"):
        precompute(clip_folder, tmp_path, other, tiny_model.text, limit=1)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no precomputed latents"):
        read_examples(tmp_path)
