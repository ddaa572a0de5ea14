"""The request: what it refuses, how it is filled, and that it survives a file."""

import json

import pytest

from openltx import GenerationRequest, RequestError
from openltx.pipelines.request import Sampling

DEFAULTS = Sampling(frames=49, width=128, height=96, fps=24.0, steps=20, cfg=4.0)


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(RequestError, match="prompt is empty"):
        GenerationRequest(prompt)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frames", 0),
        ("steps", 0),
        ("fps", 0.0),
        ("fps", float("nan")),
        ("cfg", 0.5),
        ("cfg", float("inf")),
        ("rescale", 1.5),
        ("seed", -1),
        ("image_strength", 0.0),
        ("decode_timestep", 2.0),
        ("decode_noise_scale", -0.1),
        ("cfg", (3.0, 0.5)),
        ("stg", -1.0),
        ("times", (1.0, 0.5, 0.5)),
        ("times", (1.5,)),
        ("times", ()),
        ("guidance_times", (0.2, 0.4)),
        ("skip_final", -1),
        ("tone_map", 1.5),
        ("size", "128"),
        ("size", "0x128"),
        ("size", "128x-32"),
    ],
)
def test_an_impossible_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field):
        GenerationRequest("a ball", **{field: value})


def test_an_unknown_choice_names_the_possible_ones() -> None:
    with pytest.raises(RequestError, match=r"'exact'.+'pad'"):
        GenerationRequest.from_json('{"prompt": "a ball", "fit": "stretch"}')


def test_what_is_left_open_is_as_the_model_prefers() -> None:
    resolved = GenerationRequest("a ball", steps=5).resolve(DEFAULTS)
    assert (resolved.frames, resolved.size, resolved.fps, resolved.cfg) == (49, "128x96", 24.0, 4.0)
    assert resolved.steps == 5
    assert None not in {resolved.rescale, resolved.last_step, resolved.decode_timestep, resolved.seed}


def test_resolving_a_resolved_request_changes_nothing() -> None:
    resolved = GenerationRequest("a ball", size="64x32").resolve(DEFAULTS)
    assert resolved.resolve(Sampling()) == resolved


def test_open_seeds_differ() -> None:
    seeds = {GenerationRequest("a ball").resolve(DEFAULTS).seed for _ in range(4)}
    assert len(seeds) == 4


def test_a_size_off_the_grid_names_the_nearest_valid_ones() -> None:
    with pytest.raises(RequestError, match=r"96 or 128.*--fit pad"):
        GenerationRequest("a ball", size="100x96").resolve(DEFAULTS)
    with pytest.raises(RequestError, match="41 or 49"):
        GenerationRequest("a ball", frames=48).resolve(DEFAULTS)


def test_fit_pad_accepts_any_size() -> None:
    resolved = GenerationRequest("a ball", size="100x30", frames=10, fit="pad").resolve(DEFAULTS)
    assert (resolved.size, resolved.frames) == ("100x30", 10)


@pytest.mark.parametrize("t", [0.0, 0.5])
def test_the_decoder_is_not_asked_to_denoise_from_where_it_never_learned_to(t: float) -> None:
    with pytest.raises(RequestError, match=r"up to 0\.2"):
        GenerationRequest("a ball", last_step="decoder", decode_timestep=t).resolve(DEFAULTS)


def test_a_request_survives_json() -> None:
    request = GenerationRequest('a "ball"\nbounces, über', image="start.png", size="64x32", fps=12.5, seed=3, cfg=1.0)
    assert GenerationRequest.from_json(request.to_json()) == request
    assert json.loads(request.to_json())["image"] == "start.png"


@pytest.mark.parametrize("text", ["", "[]", '{"prompt": "a ball", "nonsense": 1}', "{}"])
def test_text_that_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"not a generation request|prompt is empty"):
        GenerationRequest.from_json(text)


def test_lists_survive_a_file_and_are_filled_from_the_model() -> None:
    defaults = Sampling(cfg=(1.0, 6.0), skip_blocks=((), (11, 25)), guidance_times=(0.9, 0.1), times=(1.0, 0.5))
    resolved = GenerationRequest("a ball", size="64x32").resolve(defaults)
    assert resolved.skip_blocks == ((), (11, 25))
    assert resolved.steps == 2
    assert GenerationRequest.from_json(resolved.to_json()) == resolved
    assert resolved.resolve(Sampling()) == resolved
