"""What a client may ask for: every field of the request, no path, sensible sizes."""

from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from openltx import GenerationRequest, RequestError
from openltx.pipelines.request import Sampling
from openltx.serve import schema
from openltx.serve.schema import UPLOAD_FIELDS, VideoRequest, inputs_of, request_of, require_within, wishes
from openltx.serve.settings import Limits

DEFAULTS = Sampling(frames=25, width=128, height=96, fps=12.0, steps=4)
FILE = f"file-{'0' * 32}"
VIDEO = f"video_{'a' * 32}"


def parsed(**values: Any) -> Any:
    return VideoRequest.model_validate({"prompt": "a ball", **values})


def test_every_field_of_the_request_is_known_to_be_a_file_a_text_or_neither() -> None:
    """A new field that takes text must be classified: it could be a path."""
    hints = get_type_hints(GenerationRequest)
    text = {field.name for field in fields(GenerationRequest) if {str, Path} & set(schema._leaves(hints[field.name]))}
    assert text == {*UPLOAD_FIELDS, *schema._TEXTS, *schema._NOT_OFFERED, "keyframes"}
    assert not {field.name for field in schema.generation_fields()} & set(schema._NOT_OFFERED)


def test_the_api_has_every_field_of_the_request_with_its_words() -> None:
    described = VideoRequest.model_json_schema()["properties"]
    for field in schema.generation_fields():
        assert described[field.name]["description"].endswith(".")
    assert "What the video shows" in described["prompt"]["description"]


@pytest.mark.parametrize("name", UPLOAD_FIELDS)
@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../x.png", "start.png", "file-", f"{FILE}/../x", f"/{FILE}", f"{FILE}\n", "", 3, [FILE]]
)
def test_no_file_field_takes_a_path(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        parsed(**{name: value})


@pytest.mark.parametrize("value", ["/etc/passwd@0", "x.png@0", f"{FILE}", f"{FILE}@0:x", f"a{FILE}@0", f"{FILE}@0@1"])
def test_no_keyframe_takes_a_path(value: str) -> None:
    with pytest.raises(ValidationError):
        parsed(keyframes=[value])


def test_identifiers_are_collected_from_all_fields() -> None:
    wished = wishes(parsed(image=FILE, keyframes=[f"{VIDEO}@8:0.5", f"{FILE}@-1"], video=VIDEO, skip_initial=1))
    request, _ = request_of(wished, None, DEFAULTS)
    assert inputs_of(request) == {FILE, VIDEO}


def test_texts_of_a_form_become_numbers_lists_and_truths() -> None:
    wished = wishes(parsed(steps="3", cfg="2.5", stochastic="true", fps="8", skip_blocks=["1", "2"]))
    request, _ = request_of(wished, None, DEFAULTS)
    assert (request.steps, request.cfg, request.stochastic, request.fps) == (3, 2.5, True, 8.0)
    assert request.skip_blocks == (1, 2)


@pytest.mark.parametrize(
    ("seconds", "fps", "frames", "padded"),
    [("1", None, 12, 17), ("2", None, 24, 25), ("0.75", 12.0, 9, 9), ("4", 24.0, 96, 97)],
)
def test_seconds_become_the_frames_that_are_kept_of_8k_plus_1(
    seconds: str, fps: float | None, frames: int, padded: int
) -> None:
    request, told = request_of({"prompt": "a ball", **({"fps": fps} if fps else {})}, seconds, DEFAULTS)
    shape = request.settings(DEFAULTS).shape
    assert (shape.frames, shape.padded().frames, told) == (frames, padded, seconds)


def test_left_out_seconds_are_told_from_the_models_own_frames() -> None:
    assert request_of({"prompt": "a ball"}, None, DEFAULTS)[1] == "2.083"
    assert request_of({"prompt": "a ball", "frames": 24}, None, DEFAULTS)[1] == "2"


def test_seconds_and_frames_together_are_refused() -> None:
    with pytest.raises(RequestError, match="Both"):
        request_of({"prompt": "a ball", "frames": 9}, "1", DEFAULTS)


def test_sizes_off_the_grid_are_padded_unless_the_client_says_exact() -> None:
    request, _ = request_of(wishes(parsed(size="100x50")), None, DEFAULTS)
    assert request.fit == "pad"
    exact, _ = request_of(wishes(parsed(size="100x50", fit="exact")), None, DEFAULTS)
    with pytest.raises(RequestError, match="96 or 128"):
        exact.resolve(DEFAULTS)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"frames": 1000}, "frames"),
        ({"size": "9000x9000"}, "pixels"),
        ({"steps": 1000}, "steps"),
        ({"prompt": "x" * 9000}, "characters"),
        ({"negative": "x" * 9000}, "characters"),
        ({"fps": 1e-9}, "fps"),
        ({"fps": 1e9}, "fps"),
        ({"times": [1 - k / 1000 for k in range(999)]}, "entries"),
    ],
)
def test_what_is_too_large_is_refused_with_the_limit(values: dict[str, Any], expected: str) -> None:
    request, _ = request_of(wishes(parsed(**values)), None, DEFAULTS)
    with pytest.raises(RequestError, match=expected):
        require_within(request, DEFAULTS, Limits())


@pytest.mark.parametrize(
    "values",
    [
        {"colour": "red"},
        {"seconds": "-1"},
        {"seconds": "nan"},
        {"seconds": 1},
        {"seconds": "0"},
        {"steps": "many"},
        {"cfg": {"a": 1}},
        {"prompt": 3},
        {"prompt": None},
        {"size": "1" * 5000},
        {"fit": "stretch"},
        {"input_reference": "x"},
        {"input_reference": {"file_id": "/etc/passwd"}},
        {"priority": 1e9},
    ],
)
def test_wrong_types_and_unknown_fields_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parsed(**values)
