"""What a request gives to see becomes the right conditioning items, and what cannot be shown is refused first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import openltx
from openltx import GenerationRequest, Generator, LTXModel, MediaError, RequestError
from openltx.cli import main
from openltx.flow.path import interpolate
from openltx.geometry import patchify
from openltx.media.degrade import degraded
from openltx.media.io import read_metadata, read_video, write_video
from openltx.media.transforms import to_tensor
from openltx.pipelines.generate import Prepared
from openltx.pipelines.given import Keyframe

CELLS = 2  # of 64 x 32 pixels


def ramp(frames: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (frames, 2, 4, 3)).astype(np.uint8)
    return noise.repeat(16, 1).repeat(16, 2)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    Image.fromarray(ramp(1)[0]).save(tmp_path / "a.png")
    Image.fromarray(ramp(1, seed=1)[0]).save(tmp_path / "b.png")
    for frames in (9, 17, 20, 25):
        write_video(tmp_path / f"{frames}.mp4", ramp(frames, seed=frames), 24.0)
    black = np.zeros((32, 64, 3), np.uint8)
    black[:, 32:] = 255
    Image.fromarray(black).save(tmp_path / "right.png")
    return tmp_path


def prepared(model: LTXModel, **wishes: object) -> Prepared:
    return Generator(model).prepare(replace(GenerationRequest("a ball", frames=25, seed=1), **wishes))


def encoded(model: LTXModel, frames: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return patchify(model.vae.encode(to_tensor(frames)[None]))


def test_a_keyframe_says_file_frame_and_strength() -> None:
    assert Keyframe.parse("a@b.png@-1", 25) == Keyframe(path=Path("a@b.png"), frame=24)
    assert Keyframe.parse("clip.mp4@16:0.8", 25) == Keyframe(path=Path("clip.mp4"), frame=16, strength=0.8)
    for text in ("clip.mp4", "clip.mp4@", "clip.mp4@x", "clip.mp4@3:high"):
        with pytest.raises(RequestError, match="does not say where"):
            Keyframe.parse(text, 25)
    with pytest.raises(RequestError, match="at most 1"):
        Keyframe.parse("clip.mp4@3:1.5", 25)


def test_first_and_last_picture_are_held_at_their_places(tiny_model: LTXModel, files: Path) -> None:
    ready = prepared(tiny_model, image=files / "a.png", keyframes=(f"{files / 'b.png'}@-1",))
    state = ready.state
    assert state.tokens.shape[1] == 4 * CELLS + CELLS
    torch.testing.assert_close(state.tokens[:, :CELLS], encoded(tiny_model, ramp(1, seed=1)))
    torch.testing.assert_close(state.targets[:, :CELLS], encoded(tiny_model, ramp(1)))
    assert state.positions[0, 0, 0].item() == pytest.approx(24 / ready.settings.fps)
    video = Generator(tiny_model)(ready.request)
    assert video.frames.shape == (25, 32, 64, 3)


def test_a_clip_at_the_start_is_continued(tiny_model: LTXModel, files: Path) -> None:
    state = prepared(tiny_model, keyframes=(f"{files / '17.mp4'}@0:0.9",)).state
    frames, _ = read_video(files / "17.mp4")
    assert state.strength[0].tolist() == pytest.approx([0.9] * 3 * CELLS + [0.0] * CELLS)
    torch.testing.assert_close(state.clean[:, : 3 * CELLS], encoded(tiny_model, frames), rtol=1e-4, atol=1e-4)


def test_a_clip_of_a_length_off_the_grid_is_refused_or_cut_if_allowed(tiny_model: LTXModel, files: Path) -> None:
    with pytest.raises(RequestError, match=r"20 frames.*17 of them"):
        prepared(tiny_model, keyframes=(f"{files / '20.mp4'}@0",))
    state = prepared(tiny_model, keyframes=(f"{files / '20.mp4'}@0",), fit="pad").state
    assert state.strength[0].sum().item() == 3 * CELLS


@pytest.mark.parametrize(
    ("keyframe", "message"), [("a.png@25", "frames 0 to 24"), ("17.mp4@16", "9 of them"), ("9.mp4@4", "0 and 8")]
)
def test_a_place_that_is_not_there_is_refused(tiny_model: LTXModel, files: Path, keyframe: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        prepared(tiny_model, keyframes=(f"{files / keyframe}",))


def test_a_missing_file_is_named(tiny_model: LTXModel, files: Path) -> None:
    with pytest.raises(MediaError, match=r"no file .*nothing\.png"):
        prepared(tiny_model, keyframes=(f"{files / 'nothing.png'}@3",))


def test_a_video_to_start_from_is_noised_to_the_first_time(tiny_model: LTXModel, files: Path) -> None:
    wishes = {"video": files / "25.mp4", "times": (0.6, 0.3)}
    ready = prepared(tiny_model, **wishes)
    frames, _ = read_video(files / "25.mp4")
    noise = prepared(tiny_model).state.tokens
    expected = interpolate(encoded(tiny_model, frames), noise, torch.tensor([0.6]))
    torch.testing.assert_close(ready.state.tokens, expected, rtol=1e-4, atol=1e-4)
    by_steps = prepared(tiny_model, video=files / "25.mp4", steps=4, skip_initial=2)
    assert by_steps.times.tolist() == tiny_model.schedule.times(4, 4 * CELLS)[2:].tolist()
    assert openltx.generate(tiny_model, "a ball", frames=25, seed=1, **wishes).frames.shape == (25, 32, 64, 3)


def test_a_start_and_a_part_of_the_schedule_go_together(tiny_model: LTXModel, files: Path) -> None:
    with pytest.raises(RequestError, match="give one with video"):
        prepared(tiny_model, skip_initial=1)
    with pytest.raises(RequestError, match="all noise"):
        prepared(tiny_model, video=files / "25.mp4")
    with pytest.raises(MediaError, match="too short"):
        prepared(tiny_model, video=files / "9.mp4", skip_initial=1)


def test_a_mask_keeps_what_is_black_and_makes_anew_what_is_white(tiny_model: LTXModel, files: Path) -> None:
    ready = prepared(tiny_model, video=files / "25.mp4", mask=files / "right.png", last_step="renoise")
    assert ready.state.strength[0].tolist() == [1.0, 0.0] * 4
    *_, last = Generator(tiny_model).sample(ready)
    frames, _ = read_video(files / "25.mp4")
    kept = ready.state.strength[0] == 1
    torch.testing.assert_close(last.state.tokens[:, kept], encoded(tiny_model, frames)[:, kept], rtol=1e-4, atol=1e-4)
    with pytest.raises(RequestError, match="add video"):
        prepared(tiny_model, mask=files / "right.png")


def test_a_reference_is_seen_but_not_shown(tiny_model: LTXModel, files: Path) -> None:
    ready = prepared(tiny_model, reference=files / "25.mp4")
    n = 4 * CELLS
    assert ready.state.tokens.shape[1] == 2 * n
    assert ready.state.positions[:, :, :n].equal(ready.state.positions[:, :, n:])
    assert Generator(tiny_model)(ready.request).frames.shape == (25, 32, 64, 3)


def test_compression_changes_a_picture_a_little_and_more_at_lower_quality() -> None:
    frames = ramp(2)
    errors = [np.abs(degraded(frames, crf).astype(int) - frames).mean() for crf in (10, 29, 45)]
    assert 0 < errors[0] < errors[1] < errors[2] < 60
    assert np.array_equal(degraded(frames, 29)[1], degraded(frames[1:], 29)[0])


def test_given_pictures_are_compressed_if_asked(tiny_model: LTXModel, files: Path) -> None:
    ready = prepared(tiny_model, image=files / "a.png", image_crf=29)
    torch.testing.assert_close(
        ready.state.clean[:, :CELLS], encoded(tiny_model, degraded(ramp(1), 29)), rtol=1e-4, atol=1e-4
    )


def test_the_command_takes_several_keyframes_times_and_blocks(
    tiny_checkpoint: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "a ball", "--model", str(tiny_checkpoint), "--frames", "25", "-o", str(tmp_path / "out.mp4")]
    words += ["--keyframes", f"{files / 'a.png'}@0", f"{files / 'b.png'}@-1:0.5", "--times", "1", "0.5"]
    assert main([*words, "--stg", "1", "--skip-blocks", "0", "1"]) == 0
    request = GenerationRequest.from_json(read_metadata(tmp_path / "out.mp4")["request"])
    assert (len(request.keyframes), request.times, request.skip_blocks) == (2, (1.0, 0.5), (0, 1))


def test_a_part_of_a_clip_is_given_by_its_first_frame_and_its_end(tiny_model: LTXModel, files: Path) -> None:
    part = Keyframe.parse("clip.mp4[-9:]@0:0.5", 25)
    assert part == Keyframe(path=Path("clip.mp4"), frame=0, strength=0.5, part=(-9, None))
    for text in ("clip.mp4[3:12]@8:1", "clip.mp4[:-2]@0:0.5", "a@b.png@24:1"):
        assert str(Keyframe.parse(text, 25)) == text
    frames, _ = read_video(files / "25.mp4")
    for text, chosen in ((f"{files / '25.mp4'}[-9:]@0", frames[16:]), (f"{files / '25.mp4'}[2:11]@0", frames[2:11])):
        state = prepared(tiny_model, keyframes=(text,)).state
        torch.testing.assert_close(state.clean[:, : 2 * CELLS], encoded(tiny_model, chosen), rtol=1e-4, atol=1e-4)
