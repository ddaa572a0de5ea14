"""Long videos: what windows hand over, that decoding knows no windows, and that nothing is kept for long."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import openltx
from openltx import GenerationRequest, Generator, LTXModel, MediaError, RequestError, Windows
from openltx.conditioning import Given
from openltx.geometry import unpatchify
from openltx.media.io import read_metadata, read_video
from openltx.media.transforms import to_frames
from openltx.pipelines import long
from openltx.pipelines.long import LongStep, LongVideo, cross_fade, generate_long

WINDOWS = Windows(window=17, overlap=9)


def request(**wishes: object) -> GenerationRequest:
    return replace(GenerationRequest("a ball", frames=41, steps=2, seed=7), **wishes)


def latents_of(model: LTXModel, wanted: GenerationRequest, windows: Windows = WINDOWS) -> Tensor:
    video = LongVideo(model, windows)
    return torch.cat(list(video.latents(video.plan(wanted))), 2)


@pytest.mark.parametrize("last_step", ["decoder", "renoise"])
def test_one_window_is_what_generate_samples(tiny_model: LTXModel, last_step: str) -> None:
    wanted = request(frames=17, last_step=last_step)
    generator = Generator(tiny_model)
    prepared = generator.prepare(wanted)
    *_, last = generator.sample(prepared)
    assert latents_of(tiny_model, wanted).equal(unpatchify(last.clean, prepared.grid))


def test_what_one_window_made_stays_as_it_is_if_the_next_is_held_to_it(tiny_model: LTXModel) -> None:
    whole, first = latents_of(tiny_model, request()), latents_of(tiny_model, request(frames=17))
    assert whole.shape == (1, 16, 6, 1, 2)
    assert whole[:, :, :3].equal(first)
    assert not latents_of(tiny_model, request(seed=8))[:, :, :3].equal(first)


def test_a_window_is_given_the_last_latents_and_the_first_of_them_as_a_frame_alone(
    tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Given] = []
    prepare = Generator.prepare

    def watched(self: Generator, request: GenerationRequest, also: Sequence[Given] = ()) -> object:
        given.extend(also)
        return prepare(self, request, also)

    monkeypatch.setattr(Generator, "prepare", watched)
    wanted = request(frames=57, last_step="renoise", decode_noise_scale=0.0)
    windows = Windows(window=33, overlap=17, overlap_strength=0.7)  # 5 latents, 3 of them given on
    before = latents_of(tiny_model, replace(wanted, frames=33), windows)
    latents_of(tiny_model, wanted, windows)
    assert [item.strength for item in given] == [0.7, 0.7][: len(given)]
    assert given[0].frame == 0
    assert given[0].latents[:, :, 1:].equal(before[:, :, 3:])
    with torch.inference_mode():
        pixels = tiny_model.vae.decode(before, 0.05, 0.0)[:, :, 16:17]  # the last frame of the third latent
        frame = tiny_model.vae.encode(pixels.clamp(-1, 1))
    torch.testing.assert_close(given[0].latents[:, :, :1], frame)


def test_windows_fade_into_each_other() -> None:
    before, after = torch.zeros(1, 2, 4, 1, 1), torch.ones(1, 2, 5, 1, 1)
    assert cross_fade(before, after, 4)[0, 0, :, 0, 0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert cross_fade(before, after, 1)[0, 0, :, 0, 0].tolist() == [0.0] * 4 + [1.0] * 4


def test_later_windows_take_over_the_first_one_s_statistics(
    tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Tensor, float]] = []

    def watched(latents: Tensor, reference: Tensor, factor: float) -> Tensor:
        calls.append((reference, factor))
        return torch.full_like(latents, 3.0)

    monkeypatch.setattr(long, "adain", watched)
    first = latents_of(tiny_model, request(frames=17))
    made = latents_of(tiny_model, request(), replace(WINDOWS, adain=0.25))
    assert len(calls) == 3
    assert all(reference.equal(first) and factor == 0.25 for reference, factor in calls)
    assert made[:, :, 3:].eq(3.0).all()


@pytest.mark.parametrize("last_step", ["decoder", "renoise"])
@torch.inference_mode()
def test_decoding_knows_no_windows(tiny_model: LTXModel, last_step: str) -> None:
    video = LongVideo(tiny_model, WINDOWS)
    plan = video.plan(request(last_step=last_step, decode_noise_scale=0.02, tone_map=0.3))
    frames = torch.cat([torch.from_numpy(piece) for piece in video.stream(plan)])
    scale = 0.05 if last_step == "decoder" else 0.02
    noised = torch.cat(list(long._noised(video.latents(plan), scale, 7)), 2)
    whole = torch.from_numpy(to_frames(tiny_model.vae.decode(noised, 0.05, 0.0, 0.3)[0]))
    assert frames.shape == whole.shape == (41, 32, 64, 3)
    assert (frames.int() - whole.int()).abs().max() <= 1


@torch.inference_mode()
def test_the_decoder_s_noise_depends_on_a_latent_s_place_and_on_the_seed() -> None:
    latents = torch.randn(1, 4, 5, 2, 3)
    whole = torch.cat(list(long._noised(iter([latents]), 0.1, 7)), 2)
    assert torch.cat(list(long._noised(iter(latents.split([2, 3], 2)), 0.1, 7)), 2).equal(whole)
    noise = (whole - 0.9 * latents) / 0.1
    assert 0.8 < noise.std() < 1.2
    assert not noise[:, :, 0].allclose(noise[:, :, 1])
    assert not torch.cat(list(long._noised(iter([latents]), 0.1, 8)), 2).equal(whole)


def test_frames_come_before_the_last_windows_are_sampled(tiny_model: LTXModel) -> None:
    seen: list[LongStep] = []
    video = LongVideo(tiny_model, WINDOWS)
    pieces = video.stream(video.plan(request(frames=161)), seen.append)
    next(pieces)
    assert seen[-1].windows == 19
    assert seen[-1].window < 15
    assert sum(map(len, pieces)) > 0
    assert [step.window for step in seen] == [index for index in range(19) for _ in range(2)]


def test_only_the_end_of_the_video_so_far_is_kept(tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    fade = long.cross_fade

    def watched(before: Tensor, after: Tensor, given: int) -> Tensor:
        lengths.append(before.shape[2])
        return fade(before, after, given)

    monkeypatch.setattr(long, "cross_fade", watched)
    assert latents_of(tiny_model, request(frames=81)).shape[2] == 11
    assert max(lengths) == 4  # two of the overlap, two before them


def test_a_long_video_is_a_file_that_says_how_it_was_made(tiny_model: LTXModel, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    result = openltx.generate_long(tiny_model, request(size="50x30", frames=39, fit="pad"), path, WINDOWS)
    assert (result.frames, result.windows, result.is_whole) == (39, 4, True)
    frames, fps = read_video(path)
    assert frames.shape == (39, 30, 50, 3)
    assert fps == 8
    metadata = read_metadata(path)
    assert GenerationRequest.from_json(metadata["request"]) == result.plan.request
    assert '"window": 17' in metadata["windows"]


@pytest.mark.parametrize(("after", "frames", "windows"), [(1, 0, 0), (3, 17, 1), (4, 25, 2)])
def test_stopping_leaves_the_windows_that_were_finished(
    tiny_model: LTXModel, tmp_path: Path, after: int, frames: int, windows: int
) -> None:
    path, steps = tmp_path / "long.mp4", []
    result = generate_long(tiny_model, request(), path, WINDOWS, steps.append, lambda: len(steps) >= after)
    assert (result.frames, result.windows, result.is_whole) == (frames, windows, False)
    assert len(steps) == after
    assert (len(read_video(path)[0]) if path.exists() else 0) == frames
    assert [p.name for p in tmp_path.iterdir()] == (["long.mp4"] if frames else [])


def test_what_cannot_be_made_is_refused_before_anything_is_sampled(tiny_model: LTXModel, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"only \.mp4"):
        generate_long(tiny_model, request(), tmp_path / "long.gif", WINDOWS)
    with pytest.raises(RequestError, match="5 parts"):
        generate_long(tiny_model, request(prompt="a | b | c | d | e"), tmp_path / "long.mp4", WINDOWS)
    assert list(tmp_path.iterdir()) == []
