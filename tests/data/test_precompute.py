"""Precomputed latents: what the encoder says, mirrored twins, resumable, tied to their encoder."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from openltx.data.datasets import clips_of, read_clip
from openltx.data.latents import LatentFolder, read_examples
from openltx.data.manifest import Clip, append_clip
from openltx.data.precompute import Precompute, fold, precompute, unfold
from openltx.errors import DataError
from openltx.media.io import write_video
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


@torch.no_grad()
def test_stills_and_endings_are_encoded_by_themselves(clip_folder: Path, tmp_path: Path, tiny_model: LTXModel) -> None:
    run(clip_folder, tmp_path, tiny_model, limit=2, stills=3, ending=2, mirrored=False)
    for example, clip in zip(LatentFolder(tmp_path), clips_of(clip_folder, "train"), strict=False):
        video = to_tensor(read_clip(clip_folder, clip))[None]
        assert example.still_frames[0] == clip.frames - 1
        assert example.stills is not None
        assert example.ending is not None
        for still, place in zip(example.stills, example.still_frames, strict=True):
            expected = tiny_model.vae.encode(video[:, :, place : place + 1])[0]
            torch.testing.assert_close(still.float(), expected, rtol=0.02, atol=0.02)
        torch.testing.assert_close(
            example.ending.float(), tiny_model.vae.encode(video[:, :, -9:])[0], rtol=0.02, atol=0.02
        )
        assert len(example.still_captions) == 2


def test_folded_latents_have_fewer_cells_and_come_back(tmp_path: Path) -> None:
    latents = torch.randn(16, 3, 4, 8)
    cells = fold(latents, 4)
    assert cells.shape == (256, 3, 1, 2)
    assert unfold(cells[None], 4)[0].equal(latents)


def test_an_example_is_read_when_it_is_asked_for(clip_folder: Path, tmp_path: Path, tiny_model: LTXModel) -> None:
    run(clip_folder, tmp_path, tiny_model)
    folder, whole = LatentFolder(tmp_path), read_examples(tmp_path)
    assert len(folder) == len(whole) == 12
    for index, entry in enumerate(folder.entries):
        assert entry.shape == tuple(whole[index].latents.shape[1:])
        assert folder[index].latents.equal(whole[index].latents)


def test_other_settings_and_changed_clips_are_refused(clip_folder: Path, tmp_path: Path, tiny_model: LTXModel) -> None:
    source = tmp_path / "clips"
    shutil.copytree(clip_folder, source)
    run(source, tmp_path / "latents", tiny_model, limit=2)
    with pytest.raises(DataError, match="stills was 0, now 2"):
        run(source, tmp_path / "latents", tiny_model, limit=2, stills=2)
    manifest = source / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"fps": 24.0', '"fps": 12.0'))
    with pytest.raises(DataError, match="other clips"):
        run(source, tmp_path / "latents", tiny_model, limit=2)


def test_a_killed_run_goes_on_to_the_same_shards(
    clip_folder: Path, tmp_path: Path, tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openltx.data.precompute.CLIPS_PER_SHARD", 2)
    run(clip_folder, tmp_path / "whole", tiny_model)
    child = os.fork()
    if child == 0:  # killed in the middle of the second shard

        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr("openltx.data.precompute.save_file", _after(1, die))
        run(clip_folder, tmp_path / "parts", tiny_model)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list((tmp_path / "parts").glob("shard-*.safetensors"))) == 1
    (tmp_path / "parts" / "shard-000002-002.tmp").write_bytes(b"half")
    run(clip_folder, tmp_path / "parts", tiny_model)
    names = [path.name for path in sorted((tmp_path / "whole").glob("shard-*"))]
    assert names == [path.name for path in sorted((tmp_path / "parts").glob("shard-*"))]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def _after(calls: int, then: Callable[..., None]) -> Callable[..., None]:
    """``save_file``, and from a number of calls on something else."""
    done: list[None] = []

    def save(*arguments: object, **named: object) -> None:
        if len(done) >= calls:
            then()
        done.append(None)
        save_file(*arguments, **named)  # type: ignore[arg-type]

    return save


def test_a_damaged_shard_is_named(clip_folder: Path, tmp_path: Path, tiny_model: LTXModel) -> None:
    run(clip_folder, tmp_path, tiny_model, limit=1)
    (shard,) = tmp_path.glob("shard-*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="is damaged"):
        LatentFolder(tmp_path)


def test_a_clip_of_no_world_has_its_one_caption(tmp_path: Path, tiny_model: LTXModel) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3)).astype(np.uint8)
    write_video(tmp_path / "a.mp4", frames, 12.0)
    clip = Clip(path="a.mp4", frames=12, height=32, width=32, fps=12.0, caption="it goes left", split="train", truth={})
    append_clip(tmp_path, clip)
    run(tmp_path, tmp_path / "latents", tiny_model, stills=1)
    plain, mirrored = LatentFolder(tmp_path / "latents")
    assert tiny_model.text is not None
    for example, caption in ((plain, "it goes left"), (mirrored, "it goes right")):
        assert example.latents.shape[1] == 2  # of twelve frames, nine
        (states,) = example.captions
        torch.testing.assert_close(
            states.float(), tiny_model.text.encode([caption]).embeddings[0], rtol=0.02, atol=0.02
        )
