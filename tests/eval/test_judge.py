"""The judges against planted successes and failures, on painted videos with perfect detections."""

import math
from typing import Any

import numpy as np
import pytest

from openltx.data.worlds.playroom.scene import PALETTE
from openltx.eval.judge import Verdict, is_named, judge, motion_of
from openltx.eval.segment import colour_name, core_colour, to_lab


def truth(event: str, *objects: tuple[str, str], direction: str | None = None) -> dict[str, Any]:
    return {
        "event": event,
        "direction": direction,
        "objects": [{"color": colour, "shape": shape} for colour, shape in objects],
    }


def verdict(painting: Any, facts: dict[str, Any], caption: str = "") -> Verdict:
    return judge(painting.scene, facts, caption, 128)


def motion(painting: Any) -> str:
    scene = painting.scene
    return motion_of(scene, scene.tracks[0], 128)


def across(s: float) -> tuple[float, float]:
    return 0.8 - 0.6 * s, 0.75


def resting(s: float) -> tuple[float, float]:
    return 0.5, 0.75


def falling(s: float) -> tuple[float, float]:
    return 0.5, min(0.2 + 1.6 * s**2, 0.8)


def bouncing(s: float) -> tuple[float, float]:
    fall = 0.2 + 2.4 * s**2
    since = max(s - 0.5, 0)
    return 0.5, fall if s < 0.5 else 0.8 - 1.6 * since * (1 - since / 0.45)


def swinging(s: float) -> tuple[float, float]:
    angle = 0.6 * math.cos(2 * math.pi * s)
    return 0.5 + 0.55 * math.sin(angle), 0.55 * math.cos(angle)


def test_a_roll_to_the_left_is_right_and_reversed_it_is_wrong(stage, solid) -> None:
    video, facts = stage(solid("red", "ball", across)), truth("roll", ("red", "ball"), direction="left")
    assert verdict(video, facts).all_correct
    backwards = verdict(video.reversed(), facts)
    assert backwards.seen == "red ball: right"
    assert (backwards.colour, backwards.shape, backwards.motion) == (True, True, False)


def test_a_frozen_roll_is_still(stage, solid) -> None:
    frozen = stage(solid("red", "ball", across)).frozen()
    assert not verdict(frozen, truth("roll", ("red", "ball"), direction="left")).motion
    assert verdict(frozen, truth("still", ("red", "ball"))).motion


def test_another_colour_is_wrong_and_only_the_colour(stage, solid) -> None:
    found = verdict(stage(solid("blue", "ball", across)), truth("roll", ("red", "ball"), direction="left"))
    assert (found.colour, found.shape, found.motion) == (False, True, True)


def test_another_shape_is_wrong_and_only_the_shape(stage, solid) -> None:
    found = verdict(stage(solid("red", "cone", across)), truth("slide", ("red", "cube"), direction="left"))
    assert (found.colour, found.shape, found.motion) == (True, False, True)


def test_an_empty_stage_is_wrong_in_everything(stage) -> None:
    found = verdict(stage(), truth("still", ("red", "ball")))
    assert (found.colour, found.shape, found.motion) == (False, False, False)
    assert found.seen == "nothing: unseen"


@pytest.mark.parametrize("pan", [-30, 30])
def test_a_panning_camera_does_not_make_a_resting_solid_roll(stage, solid, pan: float) -> None:
    video = stage(solid("green", "cube", resting), pan=pan)
    assert motion(video) == "still"


def test_a_panning_camera_does_not_hide_a_roll(stage, solid) -> None:
    video = stage(solid("green", "ball", across), pan=40)
    assert motion(video) == "left"


@pytest.mark.parametrize("zoom", [-0.34, 0.34])
def test_a_zooming_camera_does_not_make_a_resting_solid_come_or_go(stage, solid, zoom: float) -> None:
    video = stage(solid("green", "cube", resting), zoom=zoom)
    assert motion(video) == "still"


def test_coming_closer_and_going_away_are_told_by_size(stage, solid) -> None:
    video = stage(solid("cyan", "ball", lambda s: (0.5, 0.6 + 0.2 * s), lambda s: (8 + 8 * s, 8 + 8 * s)))
    assert motion(video) == "toward"
    assert motion(video.reversed()) == "away"


def test_a_bounce_that_is_held_at_touch_down_is_a_drop(stage, solid) -> None:
    video = stage(solid("pink", "ball", bouncing))
    assert verdict(video, truth("bounce", ("pink", "ball"))).motion
    held = video.until(13)
    assert not verdict(held, truth("bounce", ("pink", "ball"))).motion
    assert verdict(held, truth("drop", ("pink", "ball"))).motion


def test_a_drop_played_backwards_is_no_drop(stage, solid) -> None:
    video = stage(solid("pink", "cube", falling))
    assert verdict(video, truth("drop", ("pink", "cube"))).motion
    assert not verdict(video.reversed(), truth("drop", ("pink", "cube"))).motion


def test_a_swing_goes_and_comes_back(stage, solid) -> None:
    assert verdict(stage(solid("purple", "ball", swinging)), truth("swing", ("purple", "ball"))).motion


def test_a_topple_ends_lying_and_backwards_it_is_none(stage, solid) -> None:
    def half(s: float) -> tuple[float, float]:
        angle = min(s * 2, 1) * math.pi / 2
        tall, thin = 20, 8
        return math.hypot(thin * math.cos(angle), tall * math.sin(angle)), math.hypot(
            tall * math.cos(angle), thin * math.sin(angle)
        )

    video = stage(solid("yellow", "cylinder", lambda s: (0.5 + 0.1 * s, 0.8 - half(s)[1] / 128), half))
    facts = truth("topple", ("yellow", "cylinder"), direction="right")
    assert verdict(video, facts).motion
    assert not verdict(video.reversed(), facts).motion


def test_a_collision_needs_the_second_solid_to_be_pushed(stage, solid) -> None:
    def target(s: float) -> tuple[float, float]:
        return 0.4 - 0.3 * max(s - 0.5, 0), 0.75

    facts = truth("collide", ("red", "ball"), ("blue", "cube"), direction="left")
    caption = "A red ball rolls left and hits a blue cube."
    roller = solid("red", "ball", lambda s: (0.9 - 0.6 * min(s, 0.5), 0.75))
    assert verdict(stage(roller, solid("blue", "cube", target)), facts, caption).all_correct
    ignored = verdict(stage(roller, solid("blue", "cube", lambda _: (0.3, 0.75))), facts, caption)
    assert (ignored.colour, ignored.motion) == (True, False)


def test_a_second_solid_counts_only_if_the_caption_names_it(stage, solid) -> None:
    video = stage(solid("red", "ball", across))
    facts = truth("roll", ("red", "ball"), ("green", "cube"), direction="left")
    assert verdict(video, facts, "a red ball rolls left on green grass").all_correct
    named = verdict(video, facts, "A red ball rolls left on green grass next to a green metal cube.")
    assert (named.colour, named.shape) == (False, False)


def test_a_colour_word_of_the_floor_does_not_name_a_solid() -> None:
    assert not is_named({"color": "green", "shape": "cube"}, "A red cube slides on green grass")
    assert is_named({"color": "green", "shape": "ball"}, "next to a green glossy plastic sphere")


@pytest.mark.parametrize("name", PALETTE)
@pytest.mark.parametrize("light", [0.55, 0.8, 1.0])
def test_palette_colours_are_named_in_shade_and_light(stage, solid, name: str, light: float) -> None:
    video = stage(solid(name, "ball", resting), count=1)
    frames = np.where(np.ptp(video.frames, axis=-1, keepdims=True) >= 0, video.frames * light, 0).astype(np.uint8)
    colour = core_colour(to_lab(frames)[0], video.detections[0][0])
    assert colour is not None
    assert colour_name(colour) == name


def test_exchanged_channels_change_the_verdict(stage, solid) -> None:
    video = stage(solid("red", "ball", across))
    swapped = type(video)(video.frames[..., ::-1].copy(), video.detections)
    assert verdict(swapped, truth("roll", ("red", "ball"), direction="left")).colour is False
