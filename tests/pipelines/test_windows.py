"""A long video is cut into windows that cover it, and each gets its prompt, its pictures and its seed."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openltx import GenerationRequest, MediaError, RequestError, Windows
from openltx.media.io import write_video
from openltx.pipelines.request import Sampling
from openltx.pipelines.windows import LongPlan, cut, join_prompt, plan_windows, split_prompt, spread

SAMPLING = Sampling(frames=49, width=64, height=32)
WINDOWS = Windows(window=17, overlap=9)


def plan(prompt: str = "a ball", windows: Windows = WINDOWS, **wishes: object) -> LongPlan:
    request = replace(GenerationRequest(prompt, frames=41, seed=7), **wishes)
    return plan_windows(request.resolve(SAMPLING), windows)


@pytest.mark.parametrize("frames", [17, 25, 41, 97, 241, 2001])
@pytest.mark.parametrize(("window", "overlap"), [(17, 1), (17, 9), (49, 17), (121, 25), (9, 1)])
def test_windows_cover_the_video_and_overlap_as_asked(frames: int, window: int, overlap: int) -> None:
    spans = cut(frames, window, overlap)
    assert spans[0].start == 0
    assert spans[-1].stop == frames
    assert all(b.start == a.stop - overlap for a, b in pairwise(spans))
    lengths = [len(span) for span in spans]
    assert all(length % 8 == 1 for length in lengths)
    assert all(length > overlap for length in lengths[1:])
    assert max(lengths) <= max(window, 1)
    assert max(lengths) - min(lengths) in (0, 8)
    if len(spans) > 1:  # one window less would not reach
        assert (len(spans) - 1) * (window - overlap) + overlap < frames


def test_a_video_that_fits_into_one_window_is_one() -> None:
    assert cut(17, 49, 17) == [range(17)]


def test_bars_separate_prompts_unless_a_backslash_says_otherwise() -> None:
    assert split_prompt("a ball rolls | it stops|it turns") == ["a ball rolls", "it stops", "it turns"]
    assert split_prompt(r"a sign says a\|b | it falls") == ["a sign says a|b", "it falls"]
    assert split_prompt(join_prompt(["one|two", "three"])) == ["one|two", "three"]
    for prompt in ("a | | b", "a |", "| b"):
        with pytest.raises(RequestError, match="empty part"):
            split_prompt(prompt)


def test_prompts_are_spread_over_the_windows_in_order() -> None:
    assert spread(["a", "b"], 5) == ["a", "a", "a", "b", "b"]
    assert spread(["a", "b", "c"], 3) == ["a", "b", "c"]
    with pytest.raises(RequestError, match=r"3 parts.*2 windows"):
        spread(["a", "b", "c"], 2)


def test_every_window_has_its_prompt_its_length_and_a_seed_of_its_own() -> None:
    windows = plan("a | b").windows
    assert [(w.start, w.frames, w.end) for w in windows] == [(0, 17, 17), (8, 17, 25), (16, 17, 33), (24, 17, 41)]
    assert [w.request.prompt for w in windows] == ["a", "a", "b", "b"]
    assert windows[0].request.seed == 7
    assert len({w.request.seed for w in windows}) == 4
    assert plan("a | b").windows == windows
    assert plan("a | b", seed=8).windows[1].request.seed != windows[1].request.seed


def test_a_size_off_the_grid_is_padded_before_it_is_cut() -> None:
    assert plan(frames=39, size="50x20", fit="pad").windows[-1].end == 41


def test_pictures_go_to_the_window_they_are_shown_in(tmp_path: Path) -> None:
    picture, clip = tmp_path / "a@1.png", tmp_path / "clip.mp4"
    Image.new("RGB", (64, 32)).save(picture)
    write_video(clip, np.zeros((20, 32, 64, 3), np.uint8), 24.0)
    given = (f"{picture}@-1:0.5", f"{clip}[3:12]@24")
    windows = plan(image=picture, image_strength=0.9, keyframes=given).windows
    assert [w.request.keyframes for w in windows] == [
        (f"{picture}@0:0.9",), (), (f"{clip}[3:12]@8:1",), (f"{picture}@16:0.5",)
    ]  # fmt: skip
    assert all(w.request.image is None for w in windows)


def test_what_does_not_fit_into_the_windows_is_refused(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_video(clip, np.zeros((17, 32, 64, 3), np.uint8), 24.0)
    with pytest.raises(RequestError, match="frames 0 to 40"):
        plan(keyframes=(f"{clip}@41",))
    with pytest.raises(RequestError, match="9 of them"):
        plan(keyframes=(f"{clip}@8",))  # begins in the first window, and ends behind it
    with pytest.raises(MediaError, match="no file"):
        plan(keyframes=("nothing.png@3",))
    for name in ("video", "reference"):
        with pytest.raises(RequestError, match=f"takes no {name}"):
            plan(**{name: clip, "skip_initial": 1 if name == "video" else None})


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"window": 20}, "17 and 25"),
        ({"window": 17, "overlap": 24}, "17 and 25"),
        ({"window": 17, "overlap": 0}, "1 and 9"),
        ({"window": 17, "overlap": 17}, "leaves nothing"),
        ({"window": 17, "overlap": 9, "overlap_strength": 0.0}, "above 0"),
        ({"window": 17, "overlap": 9, "adain": 1.1}, "from 0"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(wishes: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Windows(**wishes)  # type: ignore[arg-type]  # integers where they belong
