"""Two passes: every rule of the released multi-scale pipeline, and what can be done with them beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import openltx
from openltx import GenerationRequest, Generator, LTXModel, RequestError, TwoPass, TwoPassGenerator
from openltx.flow.path import interpolate
from openltx.flow.solvers import Step
from openltx.geometry import patchify, unpatchify
from openltx.media.io import read_metadata, write_video
from openltx.media.transforms import resize_cover, to_frames, to_tensor
from openltx.models.presets import vae_preset
from openltx.models.text import TextContext, TextEncoder
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.noise import derived_seed
from openltx.pipelines.remembered import RememberedTexts

Files = dict[str, Path]
PROMPT = "a red ball"
PASSES = TwoPass(first={"steps": 2}, second={"times": (0.9, 0.5)})


@pytest.fixture
def two_pass(tiny_model: LTXModel, upscaler_files: Files) -> TwoPassGenerator:
    return TwoPassGenerator(tiny_model, openltx.load_upscaler(upscaler_files["space"], tiny_model.vae), PASSES)


@pytest.fixture
def temporal(tiny_model: LTXModel, upscaler_files: Files) -> TwoPassGenerator:
    return TwoPassGenerator(tiny_model, openltx.load_upscaler(upscaler_files["time"], tiny_model.vae), PASSES)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    levels = np.random.default_rng(0).integers(0, 255, (20, 3, 4, 3)).astype(np.uint8)
    frames = levels.repeat(16, 1).repeat(16, 2)
    Image.fromarray(frames[0]).save(tmp_path / "a.png")
    write_video(tmp_path / "20.mp4", frames, 8.0)
    write_video(tmp_path / "9.mp4", frames[:9, :32], 8.0)
    write_video(tmp_path / "odd.mp4", frames[:12, :33, :50], 8.0)
    return tmp_path


def request(**wishes: object) -> GenerationRequest:
    return replace(GenerationRequest(PROMPT, size="96x96", seed=7), **wishes)


class CountingTexts:
    """A text encoder that remembers what it was asked."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.name, self.channels, self.encoder = encoder.name, encoder.channels, encoder
        self.asked: list[list[str]] = []

    def encode(self, prompts: Sequence[str]) -> TextContext:
        self.asked.append(list(prompts))
        return self.encoder.encode(prompts)


def test_the_whole_is_its_parts_done_by_hand(tiny_model: LTXModel, upscaler_files: Files) -> None:
    """official.md 4.3, with nothing of ``two_pass``: sizes, un-normalise, AdaIN, second pass, bilinear resize."""
    upscaler = openltx.load_upscaler(upscaler_files["space"], tiny_model.vae)
    video = TwoPassGenerator(tiny_model, upscaler, PASSES)(request())

    generator, vae = Generator(tiny_model), tiny_model.vae
    first = generator.prepare(GenerationRequest(PROMPT, size="64x64", seed=7, steps=2, last_step="renoise"))
    *_, last = generator.sample(first)
    z = unpatchify(last.state.targets, first.grid)
    with torch.inference_mode():
        larger = vae.normalise(upscaler.network(vae.unnormalise(z)))
        std, mean = torch.std_mean(larger, (2, 3, 4), keepdim=True)
        std1, mean1 = torch.std_mean(z, (2, 3, 4), keepdim=True)
        larger = (larger - mean) / std * std1 + mean1
    seed = derived_seed(7, "second pass")
    second = generator.prepare(GenerationRequest(PROMPT, size="128x128", seed=seed, times=(0.9, 0.5)), latents=larger)
    *_, last = generator.sample(second)
    pixels = torch.cat(list(generator.decode_pixels(second, last.state)), 1).clamp(-1, 1)
    expected = to_frames(F.interpolate(pixels.transpose(0, 1), (96, 96), mode="bilinear").transpose(0, 1))
    assert video.frames.shape == (9, 96, 96, 3)
    assert np.abs(video.frames.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "downscale", "first", "second"),
    [
        ("1216x704", 0.6666666, "800x448", "1600x896"),
        ("768x512", 0.6666666, "480x320", "960x640"),  # 768 times six sixes is 511.99: the official code gets 480 too
        ("768x512", 2 / 3, "512x320", "1024x640"),
        ("64x96", 1.0, "64x96", "128x192"),
    ],
)
def test_the_first_size_is_on_the_grid_and_the_second_is_twice_that(
    two_pass: TwoPassGenerator, size: str, downscale: float, first: str, second: str
) -> None:
    two_pass.passes = TwoPass(downscale=downscale)
    plan = two_pass.plan(request(size=size))
    assert plan.first is not None
    assert (plan.first.size, plan.second.size, plan.request.size) == (first, second, size)


def test_a_size_off_the_grid_is_padded_and_cropped_if_allowed(two_pass: TwoPassGenerator) -> None:
    with pytest.raises(RequestError, match="width=100"):
        two_pass(request(size="100x80"))
    padded = two_pass(request(size="90x70", frames=12, fit="pad"))
    whole = two_pass(request(size="96x96", frames=17))
    assert padded.frames.shape == (12, 70, 90, 3)
    assert np.array_equal(padded.frames, whole.frames[:12, 13:83, 3:93])


def test_one_seed_drives_both_passes(two_pass: TwoPassGenerator) -> None:
    first, again, other = (two_pass(request(seed=seed)).frames for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    plan = two_pass.plan(request(seed=None))
    assert plan.first is not None
    assert plan.first.seed == plan.request.seed
    assert plan.second.seed != plan.request.seed


def test_progress_counts_over_both_passes(two_pass: TwoPassGenerator) -> None:
    steps: list[Step] = []
    two_pass(request(), progress=steps.append)
    assert [(step.index, step.total) for step in steps] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [round(step.t, 4) for step in steps] == [1.0, round(steps[1].t, 4), 0.9, 0.5]


def test_settings_of_a_pass_lie_between_the_models_and_the_requests(two_pass: TwoPassGenerator) -> None:
    two_pass.passes = TwoPass(first={"cfg": 4.0, "steps": 5}, second={"cfg": 1.0, "tone_map": 0.6, "times": (0.9, 0.4)})
    plan = two_pass.plan(request())
    assert plan.first is not None
    assert (plan.first.cfg, plan.first.steps, plan.first.tone_map) == (4.0, 5, 0.0)
    assert (plan.second.cfg, plan.second.times, plan.second.tone_map) == (1.0, (0.9, 0.4), 0.6)
    plan = two_pass.plan(request(cfg=2.5))
    assert plan.first is not None
    assert (plan.first.cfg, plan.second.cfg) == (2.5, 2.5)


def test_a_later_start_is_for_the_second_pass(two_pass: TwoPassGenerator) -> None:
    two_pass.passes = TwoPass()
    for wishes, first, second in (
        ({"steps": 30}, (None, 0), (None, 17)),
        ({"steps": 10, "skip_initial": 6}, (None, 0), (None, 6)),
        ({"times": (0.8, 0.4)}, (None, 0), ((0.8, 0.4), 0)),
        ({"times": (1.0, 0.4)}, ((1.0, 0.4), 0), (None, 1)),
    ):
        plan = two_pass.plan(request(**wishes))
        assert plan.first is not None
        assert (plan.first.times, plan.first.skip_initial) == first
        assert (plan.second.times, plan.second.skip_initial) == second


def test_a_model_with_times_of_its_own_starts_its_second_pass_within_them(
    tiny_model: LTXModel, upscaler_files: Files
) -> None:
    times = (1.0, 0.99, 0.98, 0.97, 0.9, 0.7, 0.4)
    model = replace(tiny_model, sampling=tiny_model.sampling | {"times": list(times)})
    plan = TwoPassGenerator(model, openltx.load_upscaler(upscaler_files["space"], model.vae)).plan(request())
    assert plan.first is not None
    assert (plan.first.times, plan.second.times) == (times, times[3:])


def test_the_first_pass_goes_to_zero_whoever_takes_the_last_step(two_pass: TwoPassGenerator) -> None:
    steps: list[Step] = []
    video = two_pass(request(last_step="decoder", decode_timestep=0.1), progress=steps.append)
    assert [step.t_next for step in steps][1::2] == [0.0, 0.1]
    assert video.request.last_step == "decoder"


def test_pictures_are_framed_for_the_finished_video_in_both_passes(two_pass: TwoPassGenerator, files: Path) -> None:
    plan = two_pass.plan(request(size="96x64", image=files / "a.png"))
    assert plan.first is not None
    assert (plan.first.size, plan.second.size) == ("64x32", "128x64")  # 2:1, the finished video 3:2
    vae, picture = two_pass.first.model.vae, np.array(Image.open(files / "a.png"))
    framed = to_tensor(resize_cover(picture, 64, 96)[None])[:, 0][None]
    z = two_pass.first_latents(plan)
    prepared = (two_pass.first.prepare(plan.first, framing=plan.framing), two_pass.prepare_second(plan, z))
    for ready, size in zip(prepared, ((32, 64), (64, 128)), strict=True):
        with torch.inference_mode():
            expected = patchify(vae.encode(F.interpolate(framed, size, mode="bilinear")[:, :, None]))
        held = ready.state.strength[0] == 1
        torch.testing.assert_close(ready.state.clean[:, held], expected, rtol=1e-4, atol=1e-4)


def test_a_clip_off_the_grid_is_refused_or_cut_and_never_a_crash(two_pass: TwoPassGenerator, files: Path) -> None:
    """The official multi-scale pipeline fails an assertion for conditioning clips of other than 8k + 1 frames."""
    wishes = {"keyframes": (f"{files / '20.mp4'}@0",), "frames": 25}
    with pytest.raises(RequestError, match=r"20 frames.*17 of them"):
        two_pass(request(**wishes))
    assert two_pass(request(**wishes, fit="pad")).frames.shape == (25, 96, 96, 3)


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_the_prompt_is_encoded_once(tiny_model: LTXModel, upscaler_files: Files, cfg: float) -> None:
    assert tiny_model.text is not None
    texts = CountingTexts(tiny_model.text)
    model = replace(tiny_model, text=texts)
    upscaler = openltx.load_upscaler(upscaler_files["space"], model.vae)
    other = replace(tiny_model, name="other", text=None)
    TwoPassGenerator(model, upscaler, PASSES, second_model=other)(request(cfg=cfg, negative="a blue box"))
    assert texts.asked == [[PROMPT, "a blue box"][: int(cfg)]]


def test_remembered_texts_are_those_of_the_encoder(tiny_model: LTXModel) -> None:
    assert tiny_model.text is not None
    texts, prompts = RememberedTexts(tiny_model.text), ["a red ball bounces", "a cube"]
    for asked in (prompts[:1], prompts, prompts[1:], prompts[::-1], [prompts[0]] * 2):
        ours, theirs = texts.encode(asked), tiny_model.text.encode(asked)
        length = theirs.mask.shape[1]
        assert torch.equal(ours.mask[:, :length], theirs.mask)
        assert not ours.mask[:, length:].any()
        torch.testing.assert_close(ours.embeddings[:, :length], theirs.embeddings, rtol=1e-4, atol=1e-4)


def test_another_model_makes_the_second_pass(tiny_model: LTXModel, upscaler_files: Files) -> None:
    upscaler = openltx.load_upscaler(upscaler_files["space"], tiny_model.vae)
    other = replace(tiny_model, name="distilled", sampling=tiny_model.sampling | {"cfg": 1.0}, fingerprint="abc")
    mixed = TwoPassGenerator(tiny_model, upscaler, PASSES, second_model=other)
    plan = mixed.plan(request())
    assert plan.first is not None
    assert (plan.first.cfg, plan.second.cfg) == (2.0, 1.0)
    video = mixed(request())
    assert (video.model, video.details["second_model"], video.details["second_fingerprint"]) == (
        "tiny", "distilled", "abc"
    )  # fmt: skip
    assert not np.array_equal(video.frames, TwoPassGenerator(tiny_model, upscaler, PASSES)(request()).frames)


def test_models_with_other_latents_or_captions_do_not_go_together(tiny_model: LTXModel, upscaler_files: Files) -> None:
    upscaler = openltx.load_upscaler(upscaler_files["space"], tiny_model.vae)
    vae = VideoAutoencoder(vae_preset("tiny")).eval()
    with torch.no_grad():
        vae.per_channel_statistics.mean.add_(1)
    with pytest.raises(RequestError, match="different latents"):
        TwoPassGenerator(tiny_model, upscaler, second_model=replace(tiny_model, vae=vae))
    assert tiny_model.text is not None
    wide = CountingTexts(tiny_model.text)
    wide.name, wide.channels = "T5", 4096
    with pytest.raises(RequestError, match="captions of 384 channels"):
        TwoPassGenerator(replace(tiny_model, text=wide), upscaler, second_model=replace(tiny_model, text=None))
    assert TwoPassGenerator(tiny_model, upscaler, second_model=replace(tiny_model, text=wide)).second.model.text


def test_a_saved_video_says_how_to_make_it_again(tiny_model: LTXModel, upscaler_files: Files, tmp_path: Path) -> None:
    upscaler = openltx.load_upscaler(upscaler_files["space"], tiny_model.vae)
    passes = TwoPass(downscale=0.7, first={"steps": 2}, second={"cfg": 1.0})
    video = TwoPassGenerator(tiny_model, upscaler, passes)(request(seed=None, steps=None, cfg=1.5))
    video.save(tmp_path / "ball.mp4")
    said = read_metadata(tmp_path / "ball.mp4")
    assert (said["upscaler"], said["upscaler_fingerprint"]) == ("space", upscaler.fingerprint)
    again = TwoPassGenerator(tiny_model, upscaler, TwoPass.from_json(said["two_pass"]))
    assert np.array_equal(again(GenerationRequest.from_json(said["request"])).frames, video.frames)


@pytest.mark.parametrize("text", ["[1]", '"a"', '{"first": {"frames": 9}}', '{"third": {}}', "{", '{"first": 3}'])
def test_what_are_no_settings_of_two_passes_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        TwoPass.from_json(text)


def test_numbers_and_lists_of_json_become_what_a_pass_has() -> None:
    passes = TwoPass(
        first={"cfg": 1.0, "skip_blocks": ((), (1, 2)), "cfg_star": True, "stg": (1.0, 2.0), "steps": 3},
        second={"times": (0.9, 0.5), "skip_blocks": (27,), "stg_mode": "residual", "tone_map": 1.0},
    )
    assert TwoPass.from_json(passes.to_json()) == passes
    first = TwoPass.from_json('{"first": {"cfg": 2, "stg": [1, 2]}}').first
    assert [type(value) for value in (first["cfg"], *first["stg"])] == [float] * 3
    for setting in ('"steps": 2.5', '"steps": true', '"cfg": "3"', '"stg_mode": "all"', '"times": 1', '"cfg": [[1]]'):
        with pytest.raises(RequestError, match="is not possible in a pass"):
            TwoPass.from_json(f'{{"second": {{{setting}}}}}')


def test_latents_are_noised_to_the_first_time(tiny_model: LTXModel) -> None:
    generator, z = Generator(tiny_model), torch.randn(1, 16, 2, 1, 2)
    noise = generator.prepare(GenerationRequest(PROMPT, seed=1)).state.tokens
    ready = generator.prepare(GenerationRequest(PROMPT, seed=1, times=(0.6, 0.3)), latents=z)
    torch.testing.assert_close(ready.state.tokens, interpolate(patchify(z), noise, torch.tensor([0.6])))
    with pytest.raises(RequestError, match=r"2 x 1 x 3, but .* 2 x 1 x 2"):
        generator.prepare(GenerationRequest(PROMPT, times=(0.6, 0.3)), latents=torch.randn(1, 16, 2, 1, 3))
    with pytest.raises(RequestError, match="all noise"):
        generator.prepare(GenerationRequest(PROMPT), latents=z)


def test_a_video_that_exists_is_enlarged_and_refined(two_pass: TwoPassGenerator, files: Path) -> None:
    steps: list[Step] = []
    video = two_pass(request(size=None, video=files / "9.mp4"), progress=steps.append)
    assert (video.frames.shape, video.fps) == ((9, 64, 128, 3), 8.0)
    assert [(step.t, step.total) for step in steps] == [(pytest.approx(0.9), 2), (pytest.approx(0.5), 2)]
    again = TwoPassGenerator(two_pass.first.model, two_pass.upscaler, TwoPass.from_json(video.details["two_pass"]))
    assert np.array_equal(again(video.request).frames, video.frames)
    with pytest.raises(RequestError, match="becomes 9 frames of 128x64"):
        two_pass(request(size="96x96", video=files / "9.mp4"))


def test_a_video_off_the_grid_is_refused_or_padded_and_cut_back(two_pass: TwoPassGenerator, files: Path) -> None:
    with pytest.raises(RequestError, match="frames=12"):
        two_pass(request(size=None, video=files / "odd.mp4"))
    assert two_pass(request(size=None, video=files / "odd.mp4", fit="pad")).frames.shape == (9, 66, 100, 3)


def test_a_temporal_upscaler_doubles_the_rate_or_on_request_the_duration(
    temporal: TwoPassGenerator, files: Path
) -> None:
    fast, slow = (temporal(request(size=None, video=files / "9.mp4", fps=fps)) for fps in (None, 8.0))
    assert (fast.frames.shape, fast.fps) == ((17, 32, 64, 3), 16.0)
    assert (slow.frames.shape, slow.fps) == ((17, 32, 64, 3), 8.0)
    assert not np.array_equal(fast.frames, slow.frames)  # the transformer sees real seconds


def test_latents_that_exist_are_enlarged_and_refined(temporal: TwoPassGenerator) -> None:
    video = temporal(request(size=None, fps=12.0), latents=torch.randn(1, 16, 3, 1, 2))
    assert (video.frames.shape, video.fps) == ((33, 32, 64, 3), 12.0)
    assert temporal(request(size=None), latents=torch.randn(1, 16, 3, 1, 2)).fps == 8.0


def test_what_two_passes_cannot_do_is_said_before_any_work(
    two_pass: TwoPassGenerator, temporal: TwoPassGenerator, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "prepare", None)
    for generator, wishes, message in (
        (temporal, {}, "need an upscaler for space; time enlarges time"),
        (two_pass, {"size": "32x96"}, "at least 64 pixels a side"),
        (two_pass, {"video": files / "9.mp4", "mask": files / "a.png"}, "leave the upscaler out"),
        (two_pass, {"steps": 1}, "all noise"),
        (two_pass, {"stg": 1.0, "skip_blocks": (9,)}, "blocks 0 to 1"),
    ):
        passes = TwoPass() if "steps" in wishes else PASSES
        with pytest.raises(RequestError, match=message):
            TwoPassGenerator(generator.first.model, generator.upscaler, passes)(request(**wishes))
    for settings in ({"downscale": 0.0}, {"downscale": 1.5}, {"first": {"size": "1x1"}}, {"second": {"fps": 3}}):
        with pytest.raises(RequestError):
            TwoPass(**settings)
