"""Captions say what is true, in many ways, and stay true in a mirror."""

import re
from typing import Any

import numpy as np
import pytest

from openltx.data.worlds.playroom.captions import (
    BACKDROP_WORDS,
    EVENT_WORDS,
    FLOOR_WORDS,
    SHAPE_WORDS,
    mirror,
    mirror_caption,
    phrase,
)
from openltx.data.worlds.playroom.scene import ACTORS, BACKDROPS, DIRECTIONS, FLOORS, SHAPES


def truths() -> list[dict[str, Any]]:
    """One truth for every event and shape."""
    made = []
    for event, shapes in ACTORS.items():
        for number, shape in enumerate(shapes):
            directions = list(DIRECTIONS.get(event, {None: 1.0}))
            other = {"shape": "cone", "color": "blue", "size": "large", "material": "metal", "role": "target"}
            main = {"shape": shape, "color": "orange", "size": "small", "material": "rubber", "role": "main"}
            made.append(
                {
                    "objects": [main, other] if event == "collide" or number % 2 else [main],
                    "event": event,
                    "direction": directions[number % len(directions)],
                    "floor": list(FLOORS)[number % len(FLOORS)],
                    "backdrop": list(BACKDROPS)[number % len(BACKDROPS)],
                    "camera": ("static", "pan left", "orbit right", "zoom in")[number % 4],
                    "bounces": 2,
                    "caption_short": "an orange ball rolls left",
                    "caption_long": "An orange ball rolls to the left, right of a cone. The camera pans left.",
                    "tracks": [[[10.0, 50.0, 8.0], None]],
                }
            )
    return made


@pytest.mark.parametrize("truth", truths(), ids=lambda t: f"{t['event']}-{t['objects'][0]['shape']}")
def test_a_caption_names_colour_shape_and_event(truth: dict[str, Any]) -> None:
    for seed in range(40):
        caption = phrase(truth, np.random.default_rng(seed))
        assert "orange" in caption
        assert any(word in caption for word in SHAPE_WORDS[truth["objects"][0]["shape"]])
        assert any(word in caption for word in EVENT_WORDS[truth["event"]])
        assert "  " not in caption
        assert re.match(r"an? |A[n]? ", caption)
        assert not re.search(r"\ba [aeio]", caption)


@pytest.mark.parametrize("truth", truths(), ids=lambda t: f"{t['event']}-{t['objects'][0]['shape']}")
def test_a_caption_says_nothing_untrue(truth: dict[str, Any]) -> None:
    """No direction, camera move, floor or backdrop but the scene's own."""
    others = [w for floor, words in FLOOR_WORDS.items() if floor != truth["floor"] for w in words]
    others += [w for place, words in BACKDROP_WORDS.items() if place != truth["backdrop"] for w in words]
    for seed in range(40):
        caption = phrase(truth, np.random.default_rng(seed))
        assert not [w for w in others if re.search(rf"\b{w}\b", caption)]
        motion, _, camera = caption.partition("camera" if "the camera" in caption else "Camera")
        sides = {truth["direction"], *truth["camera"].split()}
        assert {w for w in ("left", "right") if re.search(rf"\b{w}\b", motion + camera)} <= sides


def test_phrasings_are_many_short_and_long() -> None:
    truth = truths()[0]
    captions = {phrase(truth, np.random.default_rng(seed)) for seed in range(200)}
    assert len(captions) > 60
    lengths = sorted(len(caption.split()) for caption in captions)
    assert lengths[0] <= 4
    assert lengths[-1] >= 18


def test_every_shape_has_words() -> None:
    assert set(SHAPE_WORDS) == set(SHAPES)


def test_the_mirror_swaps_left_and_right_only() -> None:
    for truth in truths():
        mirrored = mirror(truth)
        swap = {"left": "right", "right": "left"}
        assert mirrored["direction"] == swap.get(truth["direction"], truth["direction"])
        assert mirrored["caption_short"] == "an orange ball rolls right"
        assert mirrored["caption_long"] == "An orange ball rolls to the right, left of a cone. The camera pans right."
        assert mirrored["tracks"] == [[[118.0, 50.0, 8.0], None]]
        assert mirrored["objects"] == truth["objects"]
        assert mirror(mirrored) == truth


def test_a_mirrored_truth_is_phrased_as_the_mirrored_caption() -> None:
    for truth in truths():
        for seed in range(10):
            here, there = (phrase(t, np.random.default_rng(seed)) for t in (truth, mirror(truth)))
            assert mirror_caption(here) == there
