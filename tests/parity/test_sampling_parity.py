"""Whole generations against the official package: the same file, seed and settings give the same final latents.

Noise, schedule, guidance, solver and decoder are compared together; where the official code is wrong, openltx is right,
and the test says so. ``official.py`` has the two pipelines.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from openltx import Generator, RequestError
from openltx.flow.schedule import Schedule
from openltx.geometry import LatentShape, unpatchify

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing config attribute:FutureWarning"),  # all of the official code
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
]

MODES = ("attention_values", "attention_skip", "residual", "transformer_block")
DISTILLED = (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725)


@pytest.mark.parametrize("release", ["0.9.0", "0.9.5"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_plain_guidance_on_both_schedules(official: ModuleType, pairs: Callable, release: str, cfg: float) -> None:
    pair = pairs(release)
    official.require_same(pair.our_latents(cfg=cfg), pair.their_latents(guidance_scale=cfg))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_spatio_temporal_guidance_with_rescaling(official: ModuleType, pairs: Callable, mode: str, cfg: float) -> None:
    pair = pairs("0.9.5")
    theirs = pair.their_latents(
        guidance_scale=cfg,
        stg_scale=1.5,
        rescaling_scale=0.7,
        skip_block_list=[0, 2],
        skip_layer_strategy=official.MODES[mode],
    )
    ours = pair.our_latents(cfg=cfg, stg=1.5, rescale=0.7, skip_blocks=(0, 2), stg_mode=mode)
    official.require_same(ours, theirs, unlike=pair.plain)


def test_the_residual_mode_weakens_nothing_in_either(official: ModuleType, pairs: Callable) -> None:
    pair = pairs("0.9.5")
    mode = official.MODES["residual"]
    theirs = pair.their_latents(stg_scale=5.0, skip_block_list=[0, 1, 2], skip_layer_strategy=mode)
    official.require_same(theirs, pair.plain)
    ours = pair.our_latents(stg=5.0, skip_blocks=(0, 1, 2), stg_mode="residual")
    official.require_same(ours, theirs)


def test_guidance_by_time_with_cfg_star_and_skipped_last_steps(official: ModuleType, pairs: Callable) -> None:
    pair = pairs("0.9.5")
    times = (1.0, 0.996, 0.98, 0.9, 0.6)
    theirs = pair.their_latents(
        num_inference_steps=10,
        skip_final_inference_steps=2,
        guidance_timesteps=list(times),
        guidance_scale=[1, 3, 6, 2, 1],
        stg_scale=[0, 0, 3, 2, 1],
        rescaling_scale=[1, 1, 0.5, 0.7, 1],
        skip_block_list=[[], [0, 2], [1], [2], [2]],
        cfg_star_rescale=True,
        skip_layer_strategy=official.MODES["attention_values"],
    )
    settings = {
        "steps": 10,
        "skip_final": 2,
        "guidance_times": times,
        "cfg": (1.0, 3.0, 6.0, 2.0, 1.0),
        "stg": (0.0, 0.0, 3.0, 2.0, 1.0),
        "rescale": (0.0, 0.0, 0.5, 0.7, 0.0),  # where theirs says 1, see below
        "skip_blocks": ((), (0, 2), (1,), (2,), (2,)),
    }
    without_star = pair.our_latents(**settings)
    official.require_same(pair.our_latents(**settings, cfg_star=True), theirs, unlike=without_star)


def test_distilled_times(official: ModuleType, pairs: Callable) -> None:
    pair = pairs("0.9.5")
    theirs = pair.their_latents(timesteps=list(DISTILLED), guidance_scale=1.0)
    unlike = pair.their_latents(guidance_scale=1.0)
    official.require_same(pair.our_latents(times=DISTILLED, cfg=1.0), theirs, unlike=unlike)


def test_the_times_that_a_distilled_file_allows(official: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "distilled.safetensors"
    official.write_file(path, "0.9.5", allowed=(*DISTILLED, 0.4219))
    pair = official.Pair(path)
    for ours, theirs in (({"times": DISTILLED}, {"timesteps": list(DISTILLED)}), ({"steps": 8}, {})):
        wishes = theirs or {"num_inference_steps": 8}
        official.require_same(pair.our_latents(cfg=1.0, **ours), pair.their_latents(guidance_scale=1.0, **wishes))
    with pytest.raises(AssertionError, match="Allowed timesteps"):
        pair.their_latents(timesteps=[1.0, 0.5], guidance_scale=1.0)


def test_stochastic_sampling(official: ModuleType, pairs: Callable) -> None:
    pair = pairs("0.9.5")
    theirs = pair.their_latents(num_inference_steps=8, guidance_scale=1.0, stochastic_sampling=True)
    unlike = pair.our_latents(steps=8, cfg=1.0)
    official.require_same(pair.our_latents(steps=8, cfg=1.0, stochastic=True), theirs, unlike=unlike)


def test_noise_can_be_given_as_tokens_or_latents(official: ModuleType, pairs: Callable) -> None:
    pair = pairs("0.9.5")
    tokens = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(official.SEED))
    latents = unpatchify(tokens, LatentShape(frames=4, height=2, width=3))
    for noise in (tokens, latents):
        ours = pair.our_latents(noise=noise, seed=99, noise_layout="openltx")
        official.require_same(ours, pair.plain, unlike=pair.our_latents(seed=99))
    with pytest.raises(RequestError, match="needs \\(1, 24, 16\\)"):
        pair.our_latents(noise=tokens[:, 1:])


@pytest.mark.parametrize("release", ["0.9.0", "0.9.1", "0.9.5"])
@pytest.mark.parametrize("tone_map", [0.0, 0.6])
def test_decoding(official: ModuleType, pairs: Callable, release: str, tone_map: float) -> None:
    """Ours are the official frames, rounded to the nearest of 256 levels: injected noise of 0.9.1 included."""
    pair = pairs(release)
    theirs = pair.their_latents(
        output_type="pt", decode_timestep=0.05, decode_noise_scale=0.025, tone_map_compression_ratio=tone_map
    )[0]
    noise = {} if release == "0.9.0" else {"decode_timestep": 0.05, "decode_noise_scale": 0.025}
    request = official.a_request(stochastic=False, tone_map=tone_map, **noise)
    levels = theirs.permute(1, 2, 3, 0).numpy() * 255
    assert np.isin(levels, (0, 255)).mean() < 0.5  # what is cut off is not compared
    assert np.abs(Generator(pair.ours)(request).frames - levels).max() <= 0.5 + 255 * official.TOLERANCE


def test_decoding_after_stochastic_sampling(official: ModuleType, pairs: Callable) -> None:
    """The official decode noise comes after that of the steps, from the same generator."""
    pair = pairs("0.9.5")
    theirs = pair.their_latents(
        output_type="pt", decode_timestep=0.05, decode_noise_scale=0.1, stochastic_sampling=True
    )[0]
    request = official.a_request(stochastic=True, decode_timestep=0.05, decode_noise_scale=0.1)
    levels = theirs.permute(1, 2, 3, 0).numpy() * 255
    assert np.abs(Generator(pair.ours)(request).frames - levels).max() <= 0.5 + 255 * official.TOLERANCE


@pytest.mark.parametrize("tokens", [24, 1024, 6080])
@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        (Schedule(kind="linear_quadratic"), {"sampler": "LinearQuadratic"}),
        (
            Schedule(kind="uniform", shift="tokens", terminal=0.1),
            {"sampler": "Uniform", "shifting": "SD3", "target_shift_terminal": 0.1},
        ),
        (Schedule(kind="uniform", shift="tokens"), {"sampler": "Uniform", "shifting": "SD3"}),
        (Schedule(kind="constant", constant_mu=1.5), {"sampler": "Constant", "shift": 1.5}),
    ],
)
def test_schedules(official: ModuleType, schedule: Schedule, settings: dict[str, object], tokens: int) -> None:
    scheduler = official.RectifiedFlowScheduler(**settings)
    for steps in (2, 5, 8, 30, 40):
        scheduler.set_timesteps(steps, samples_shape=torch.Size((1, 16, tokens, 1, 1)))
        torch.testing.assert_close(schedule.times(steps, tokens), scheduler.timesteps, rtol=0, atol=2e-6)


def test_one_step_stretched_to_a_terminal_is_no_number_in_the_official_code(official: ModuleType) -> None:
    scheduler = official.RectifiedFlowScheduler(sampler="Uniform", shifting="SD3", target_shift_terminal=0.1)
    scheduler.set_timesteps(1, samples_shape=torch.Size((1, 16, 24, 1, 1)))
    assert scheduler.timesteps.isnan().all()
    assert official.SHIFTED.times(1, 24).tolist() == [1.0]


def test_rescaling_without_spatio_temporal_guidance_is_ignored_by_the_official_code(
    official: ModuleType, pairs: Callable
) -> None:
    pair = pairs("0.9.5")
    assert torch.equal(pair.their_latents(rescaling_scale=0.7), pair.plain)
    assert official.error(pair.our_latents(rescale=0.7), pair.plain) > 100 * official.TOLERANCE


def test_a_rescaling_of_one_is_none_in_the_official_code(official: ModuleType, pairs: Callable) -> None:
    """There 0.9 restores nine tenths of the deviation and 1 nothing; here 1 restores all and 0 nothing."""
    pair = pairs("0.9.5")
    theirs = pair.their_latents(stg_scale=1.5, skip_block_list=[1], skip_layer_strategy=official.MODES[MODES[0]])
    ours = {rescale: pair.our_latents(stg=1.5, skip_blocks=(1,), rescale=rescale) for rescale in (0.0, 1.0)}
    official.require_same(ours[0.0], theirs, unlike=ours[1.0])


def test_lists_without_times_break_the_official_code_and_are_refused_here(pairs: Callable) -> None:
    pair = pairs("0.9.5")
    with pytest.raises(NameError):
        pair.their_latents(guidance_scale=[1.0, 3.0])
    with pytest.raises(RequestError, match="no guidance times"):
        pair.our_latents(cfg=(1.0, 3.0))
