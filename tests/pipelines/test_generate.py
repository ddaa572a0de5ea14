"""The generator's laws, on a tiny model with random weights."""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import openltx
from openltx import CheckpointError, GenerationRequest, Generator, LTXModel, RequestError
from openltx.flow.guidance import guide
from openltx.flow.path import TokenState
from openltx.flow.solvers import Step
from openltx.geometry import patchify, unpatchify
from openltx.kernels.library import computes_in_bfloat16
from openltx.media.io import read_metadata
from openltx.media.transforms import to_tensor
from openltx.models.presets import vae_preset
from openltx.models.transformer import Skip
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.pipelines import generate as module
from openltx.pipelines import residency, velocity

PROMPT = "a red ball"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "start.png"
    ramp = np.linspace(0, 255, 64 * 32 * 3).reshape(32, 64, 3).astype(np.uint8)
    Image.fromarray(ramp).save(path)
    return path


def test_the_same_seed_gives_the_same_video_and_another_seed_another(tiny_model: LTXModel) -> None:
    first, again, other = (openltx.generate(tiny_model, PROMPT, seed=seed).frames for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_drawn_seed_makes_the_same_video_again(tiny_model: LTXModel) -> None:
    video = openltx.generate(tiny_model, PROMPT)
    assert np.array_equal(Generator(tiny_model)(video.request).frames, video.frames)


def test_a_video_has_the_size_that_was_asked_for(tiny_model: LTXModel) -> None:
    assert openltx.generate(tiny_model, PROMPT).frames.shape == (9, 32, 64, 3)
    assert openltx.generate(tiny_model, PROMPT, size="32x96", frames=17).frames.shape == (17, 96, 32, 3)
    padded = openltx.generate(tiny_model, PROMPT, size="50x33", frames=12, fit="pad")
    assert padded.frames.shape == (12, 33, 50, 3)


def test_padding_is_cut_off_on_both_sides(tiny_model: LTXModel) -> None:
    whole = openltx.generate(tiny_model, PROMPT, size="64x64", frames=17, seed=1).frames
    part = openltx.generate(tiny_model, PROMPT, size="61x34", frames=12, fit="pad", seed=1).frames
    assert np.array_equal(part, whole[:12, 15:49, 1:62])


def test_progress_is_told_after_every_step(tiny_model: LTXModel) -> None:
    steps: list[Step] = []
    Generator(tiny_model)(GenerationRequest(PROMPT, steps=4), progress=steps.append)
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert {step.total for step in steps} == {4}


@pytest.mark.parametrize(("last_step", "end"), [("decoder", 0.1), ("renoise", 0.0)])
def test_the_sampler_leaves_the_last_step_to_the_decoder_only_if_asked(
    tiny_model: LTXModel, last_step: str, end: float
) -> None:
    generator = Generator(tiny_model)
    request = replace(GenerationRequest(PROMPT, seed=1, decode_timestep=0.1), last_step=last_step)
    *_, last = generator.sample(generator.prepare(request))
    assert last.t_next == end


def test_with_renoise_and_no_noise_the_decoder_gets_the_samplers_latents(tiny_model: LTXModel) -> None:
    generator = Generator(tiny_model)
    prepared = generator.prepare(
        GenerationRequest(PROMPT, seed=1, last_step="renoise", decode_timestep=0.05, decode_noise_scale=0.0)
    )
    *_, last = generator.sample(prepared)
    with torch.inference_mode():
        latents = unpatchify(last.state.targets, prepared.grid)
        expected = tiny_model.vae.decode(latents, t=0.05, noise_scale=0.0, generator=prepared.draws.of_decoder((), 0))
    assert np.allclose(to_tensor(generator.decode(prepared, last.state)), expected[0].clamp(-1, 1), atol=1 / 255)


def test_a_preview_does_not_change_the_video(tiny_model: LTXModel) -> None:
    generator = Generator(tiny_model)
    prepared = generator.prepare(GenerationRequest(PROMPT, seed=1))
    steps = list(generator.sample(prepared))
    previews = [generator.decode(prepared, step.state) for step in steps]
    assert np.array_equal(previews[-1], Generator(tiny_model)(prepared.request).frames)


def test_guidance_of_one_ignores_the_negative_prompt(tiny_model: LTXModel) -> None:
    def frames(cfg: float, negative: str) -> np.ndarray:
        return openltx.generate(tiny_model, PROMPT, seed=1, cfg=cfg, negative=negative).frames

    assert np.array_equal(frames(1.0, ""), frames(1.0, "a blue box"))
    assert not np.array_equal(frames(6.0, ""), frames(6.0, "a blue box"))


@pytest.mark.parametrize("strength", [1.0, 0.75])
def test_the_first_frames_tokens_are_the_pictures(tiny_model: LTXModel, picture: Path, strength: float) -> None:
    generator = Generator(tiny_model)
    prepared = generator.prepare(GenerationRequest(PROMPT, image=picture, image_strength=strength, seed=1))
    cells = prepared.grid.height * prepared.grid.width
    with torch.inference_mode():
        pixels = to_tensor(np.array(Image.open(picture))[None])[None]
        latents = patchify(tiny_model.vae.encode(pixels))
    assert torch.allclose(prepared.state.clean[:, :cells], latents, atol=1e-5)
    assert prepared.state.strength[:, :cells].eq(strength).all()
    assert prepared.state.strength[:, cells:].eq(0).all()


def test_a_firm_first_frame_is_never_moved_and_reaches_the_decoder_at_its_noise_level(
    tiny_model: LTXModel, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(tiny_model)
    prepared = generator.prepare(GenerationRequest(PROMPT, image=picture, seed=1, decode_timestep=0.2))
    *_, last = generator.sample(prepared)
    held = prepared.state.strength[0] == 1
    clean = prepared.state.clean[:, held]
    assert torch.equal(last.state.tokens[:, held], clean)

    received: list[torch.Tensor] = []

    def decode(
        latents: torch.Tensor, t: float, noise_scale: float, tone_map: float, _generator: torch.Generator
    ) -> torch.Tensor:
        assert (t, noise_scale, tone_map) == (0.2, 0.0, 0.0)
        received.append(patchify(latents))
        return torch.zeros(1, 3, 9, 32, 64)

    monkeypatch.setattr(tiny_model.vae, "decode", decode)
    generator.decode(prepared, last.state)
    noise = (received[0][:, held] - 0.8 * clean) / 0.2
    assert abs(noise.std().item() - 1) < 0.4
    assert torch.equal(received[0][:, ~held], last.state.tokens[:, ~held])


def test_a_vae_that_cannot_denoise_is_given_the_finished_latents(tiny_model: LTXModel) -> None:
    vae = VideoAutoencoder(vae_preset("0.9.0", base_channels=8, latent_channels=16)).eval()
    old = replace(tiny_model, vae=vae)
    assert openltx.generate(old, PROMPT).request.last_step == "renoise"
    with pytest.raises(RequestError, match="timestep"):
        openltx.generate(old, PROMPT, last_step="decoder")


def test_a_picture_of_any_size_is_scaled_and_cropped(tiny_model: LTXModel, tmp_path: Path) -> None:
    path = tmp_path / "tall.png"
    Image.new("RGB", (50, 300), (200, 40, 40)).save(path)
    assert openltx.generate(tiny_model, PROMPT, image=path).frames.shape == (9, 32, 64, 3)
    assert openltx.generate(tiny_model, PROMPT, image=path, size="40x40", fit="pad").frames.shape == (9, 40, 40, 3)


def test_generate_takes_exactly_the_fields_of_a_request() -> None:
    model, *fields = inspect.signature(openltx.generate).parameters.values()
    assert model.name == "model"
    assert fields == list(inspect.signature(GenerationRequest).parameters.values())


def test_a_saved_video_says_how_to_make_it_again(tiny_model: LTXModel, tmp_path: Path) -> None:
    video = openltx.generate(tiny_model, PROMPT, seed=5)
    for name in ("ball.mp4", "ball.gif", "ball.webp"):
        video.save(tmp_path / name)
        metadata = read_metadata(tmp_path / name)
        assert GenerationRequest.from_json(metadata["request"]) == video.request
        assert metadata["model"] == "tiny"
        assert metadata["fingerprint"] == tiny_model.fingerprint


def test_a_model_without_a_text_encoder_says_so(tiny_model: LTXModel) -> None:
    with pytest.raises(CheckpointError, match="text encoder"):
        Generator(replace(tiny_model, text=None)).prepare(GenerationRequest(PROMPT))


def test_bfloat16_weights_make_nearly_the_same_video(tiny_model: LTXModel, tiny_checkpoint: Path) -> None:
    half = openltx.load(tiny_checkpoint, device="cpu", precision="bfloat16")
    ours, theirs = (openltx.generate(model, PROMPT, seed=1).frames.astype(float) for model in (half, tiny_model))
    assert np.abs(ours - theirs).mean() < 4


def test_auto_precision_is_bfloat16_where_the_processor_computes_in_it(tiny_checkpoint: Path) -> None:
    weight = next(openltx.load(tiny_checkpoint, device="cpu").transformer.parameters())
    assert weight.dtype == (torch.bfloat16 if computes_in_bfloat16() else torch.float32)


def test_int8_makes_nearly_the_same_video_and_keeps_its_weights_in_the_cache(
    tiny_model: LTXModel, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path))
    library = tmp_path / "kernels"  # (the kernels are loaded already)
    small = openltx.load(tiny_checkpoint, device="cpu", precision="int8")
    ours, theirs = (openltx.generate(model, PROMPT, seed=1).frames.astype(float) for model in (small, tiny_model))
    assert np.abs(ours - theirs).mean() < 6
    assert [path.name for path in (tmp_path / "int8").iterdir()] == [f"tiny-{tiny_model.fingerprint}.safetensors"]
    assert not library.exists()


def test_compiling_is_for_accelerators(tiny_checkpoint: Path) -> None:
    with pytest.raises(RequestError, match="accelerators"):
        openltx.load(tiny_checkpoint, device="cpu", compile=True)


def test_int8_is_for_the_cpu(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "choose_device", lambda _: torch.device("cuda"))
    with pytest.raises(RequestError, match="CPU only"):
        openltx.load(tiny_checkpoint, precision="int8")


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_prompt_and_negative_prompt_in_one_batch_are_two_passes(
    tiny_model: LTXModel, picture: Path, monkeypatch: pytest.MonkeyPatch, cfg: float
) -> None:
    request = GenerationRequest(PROMPT, negative="a blue cube", image=picture, seed=1, cfg=cfg)
    states = []
    for limit, calls in ((0, 2), (10_000, 1)):
        monkeypatch.setattr(velocity, "ONE_BATCH_TOKENS", limit)
        generator = Generator(tiny_model)
        prepared = generator.prepare(request)
        assert (prepared.prompts.both is not None) == (calls == 1 and cfg > 1)
        assert (prepared.prompts.negative is not None) == (cfg > 1)
        *_, last = generator.sample(prepared)
        states.append(last.state.tokens)
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-4)


CURVES = {
    "prompt only": {"cfg": 1.0},
    "stg": {"cfg": 3.0, "stg": 1.5, "skip_blocks": (1,), "rescale": 0.7},
    "by time": {
        "cfg": (1.0, 4.0, 2.0),
        "stg": (0.0, 2.0, 1.0),
        "skip_blocks": ((), (0,), (0, 1)),
        "rescale": (0.0, 0.5, 0.0),
        "cfg_star": True,
        "guidance_times": (0.999, 0.6, 0.3),
        "stg_mode": "attention_skip",
    },
}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("limit", [0, 10_000])
def test_each_step_is_guided_by_the_formula_of_its_time(
    tiny_model: LTXModel, picture: Path, monkeypatch: pytest.MonkeyPatch, curve: str, limit: int
) -> None:
    monkeypatch.setattr(velocity, "ONE_BATCH_TOKENS", limit)
    settings = CURVES[curve]
    request = GenerationRequest(
        PROMPT, negative="a blue cube", image=picture, image_strength=0.8, seed=1, times=(1.0, 0.7, 0.35), **settings
    )
    generator, transformer, text = Generator(tiny_model), tiny_model.transformer, tiny_model.text
    prepared = generator.prepare(request)
    before = prepared.state

    def forward(state: TokenState, t: float, prompt: str, skip: Skip | None = None) -> torch.Tensor:
        assert text is not None
        words = text.encode([prompt])
        times = state.effective_t(t)
        return transformer(state.tokens, times, state.positions, words.embeddings, words.mask, skip=skip)

    for number, step in enumerate(generator.sample(prepared)):
        guidance = prepared.curve.at(step.t)
        if curve == "by time":
            assert (guidance.cfg, guidance.stg) == ((1.0, 0.0), (4.0, 2.0), (2.0, 1.0))[number]
        with torch.inference_mode():
            positive, negative = (forward(before, step.t, prompt) for prompt in (PROMPT, "a blue cube"))
            weak = forward(before, step.t, PROMPT, Skip(guidance.skip_blocks, prepared.settings.stg_mode))
            v = guide(positive, negative, weak, guidance)
            moved = before.tokens - (step.t - step.t_next) * v
        free = before.strength == 0
        torch.testing.assert_close(step.state.tokens[free], moved[free], rtol=1e-4, atol=1e-4)
        before = step.state
    assert number == 2


def test_explicit_times_and_skipped_steps_choose_where_the_transformer_is_called(tiny_model: LTXModel) -> None:
    generator = Generator(tiny_model)

    def times(**wishes: object) -> list[float]:
        request = replace(GenerationRequest(PROMPT, seed=1, last_step="renoise"), **wishes)
        return [step.t for step in generator.sample(generator.prepare(request))]

    schedule = tiny_model.schedule.times(6, 2).tolist()
    assert times(steps=6) == schedule
    assert times(steps=6, skip_final=2) == schedule[:4]
    assert times(times=(1.0, 0.5, 0.25)) == [1.0, 0.5, 0.25]
    assert generator.resolve(GenerationRequest(PROMPT, times=(1.0, 0.5))).steps == 2


def test_stochastic_sampling_is_repeatable_and_another_video(tiny_model: LTXModel) -> None:
    first, again = (openltx.generate(tiny_model, PROMPT, seed=1, stochastic=True).frames for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, openltx.generate(tiny_model, PROMPT, seed=1).frames)


def test_noise_on_a_given_picture_and_tone_mapping_reach_the_video(tiny_model: LTXModel, picture: Path) -> None:
    def frames(**wishes: object) -> np.ndarray:
        request = replace(GenerationRequest(PROMPT, image=picture, seed=1), **wishes)
        return Generator(tiny_model)(request).frames

    plain = frames()
    assert not np.array_equal(plain, frames(image_noise=0.5))
    assert not np.array_equal(plain, frames(tone_map=1.0))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"stg": 1.0}, "stg without skip_blocks"),
        ({"stg": 1.0, "skip_blocks": (7,)}, "blocks 0 to 1"),
        ({"cfg": (1.0, 2.0)}, "no guidance times"),
        ({"skip_initial": 1}, "give one with video"),
        ({"steps": 3, "skip_final": 3}, "leaves none"),
    ],
)
def test_guidance_that_cannot_be_is_refused(tiny_model: LTXModel, wishes: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Generator(tiny_model).prepare(replace(GenerationRequest(PROMPT), **wishes))


def test_a_video_decoded_in_pieces_is_the_video(tiny_model: LTXModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = openltx.generate(tiny_model, PROMPT, seed=1, frames=33, size="40x40", fit="pad").frames
    monkeypatch.setattr(module, "WHOLE_DECODE_TOKENS", 0)
    generator = Generator(tiny_model)
    prepared = generator.prepare(GenerationRequest(PROMPT, seed=1, frames=33, size="40x40", fit="pad"))
    *_, last = generator.sample(prepared)
    pieces = list(generator.decode_stream(prepared, last.state))
    assert len(pieces) > 2
    assert np.abs(np.concatenate(pieces).astype(int) - whole).max() <= 1


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    with pytest.raises(RequestError, match="cpu"):
        openltx.load("playroom", device="mps")
