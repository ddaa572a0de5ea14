"""Given pictures, clips, videos and latents, against the official package: see ``test_sampling_parity``.

The official code takes a sample of the VAE's posterior; so does openltx with the official noise layout.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from openltx import GenerationRequest
from openltx.conditioning import Given
from openltx.pipelines import generate, given

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing config attribute:FutureWarning"),  # all of the official code
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
]

# file, frame, strength; at the last of the five times, 0.53, a token of strength below 0.47 begins to move
KEYFRAMES: dict[str, tuple[tuple[str, int, float], ...]] = {
    "a picture at an odd place": (("a.png", 13, 1.0),),
    "a weak picture": (("a.png", 8, 0.3),),
    "the last frame": (("a.png", 24, 0.8),),
    "a clip to go on from": (("17.mp4", 0, 1.0),),
    "a weak clip to go on from": (("17.mp4", 0, 0.4),),
    "a clip inside": (("17.mp4", 8, 1.0),),
    "a weak clip inside": (("17.mp4", 8, 0.4),),
    "first and last": (("a.png", 0, 1.0), ("b.png", 24, 0.9)),
    "a clip between two pictures": (("a.png", 0, 1.0), ("17.mp4", 8, 0.4), ("b.png", 20, 1.0)),
}


@pytest.mark.parametrize("release", ["0.9.0", "0.9.5"])
@pytest.mark.parametrize("strength", [1.0, 0.8, 0.3])
def test_a_first_picture(official: ModuleType, pairs: Callable, media: Path, release: str, strength: float) -> None:
    pair = pairs(release)
    theirs = pair.their_latents(conditioning_items=[official.item(media / "a.png", 0, strength)])
    ours = pair.our_latents(image=media / "a.png", image_strength=strength)
    official.require_same(ours, theirs, unlike=pair.plain)


@pytest.mark.parametrize("strength", [1.0, 0.8])
def test_noise_on_a_first_picture(official: ModuleType, pairs: Callable, media: Path, strength: float) -> None:
    """It is for pictures of strength 1: a weaker one has noise already."""
    pair = pairs("0.9.5")
    items = [official.item(media / "a.png", 0, strength)]
    theirs = pair.their_latents(conditioning_items=items, image_cond_noise_scale=0.15)
    still = pair.our_latents(image=media / "a.png", image_strength=strength)
    ours = pair.our_latents(image=media / "a.png", image_strength=strength, image_noise=0.15)
    official.require_same(ours, theirs, unlike=still if strength == 1 else None)


@pytest.mark.parametrize("what", KEYFRAMES)
def test_keyframes(official: ModuleType, pairs: Callable, media: Path, what: str) -> None:
    pair = pairs("0.9.5")
    items = [official.item(media / name, frame, strength) for name, frame, strength in KEYFRAMES[what]]
    theirs = pair.their_latents(conditioning_items=items, image_cond_noise_scale=0.15)
    keyframes = tuple(f"{media / name}@{frame}:{strength}" for name, frame, strength in KEYFRAMES[what])
    official.require_same(pair.our_latents(keyframes=keyframes, image_noise=0.15), theirs, unlike=pair.plain)


def test_keyframes_with_stochastic_sampling(official: ModuleType, pairs: Callable, media: Path) -> None:
    pair = pairs("0.9.5")
    items = [official.item(media / "a.png", 20, 0.4), official.item(media / "17.mp4", 8)]
    theirs = pair.their_latents(conditioning_items=items, stochastic_sampling=True)
    keyframes = (f"{media / 'a.png'}@20:0.4", f"{media / '17.mp4'}@8")
    official.require_same(pair.our_latents(keyframes=keyframes, stochastic=True), theirs, unlike=pair.plain)


def test_keyframes_where_frames_are_not_numbered_causally(official: ModuleType, pairs: Callable, media: Path) -> None:
    pair = pairs("0.9.0")
    items = [official.item(media / "17.mp4", 8), official.item(media / "a.png", 3, 0.9)]
    ours = pair.our_latents(keyframes=(f"{media / '17.mp4'}@8", f"{media / 'a.png'}@3:0.9"))
    official.require_same(ours, pair.their_latents(conditioning_items=items), unlike=pair.plain)


@pytest.mark.parametrize(("theirs_is", "ours_is"), [("concat", "tokens"), ("soft", "soft"), ("drop", "drop")])
def test_the_first_two_latents_of_a_clip(
    official: ModuleType,
    pairs: Callable,
    media: Path,
    monkeypatch: pytest.MonkeyPatch,
    theirs_is: str,
    ours_is: str,
) -> None:
    """A call of either pipeline always takes the first of these; their parts know the others."""
    pair = pairs("0.9.5")
    name = "_handle_non_first_conditioning_sequence"
    method = functools.partial(getattr(official.LTXVideoPipeline, name), prefix_latents_mode=theirs_is)
    monkeypatch.setattr(official.LTXVideoPipeline, name, staticmethod(method))
    monkeypatch.setattr(given, "Given", functools.partial(Given, prefix=ours_is))
    theirs = pair.their_latents(conditioning_items=[official.item(media / "17.mp4", 8, 0.8)])
    ours = pair.our_latents(keyframes=(f"{media / '17.mp4'}@8:0.8",))
    official.require_same(ours, theirs, unlike=pair.plain)


@pytest.mark.parametrize("with_picture", [False, True])
def test_a_video_to_start_from(official: ModuleType, pairs: Callable, media: Path, with_picture: bool) -> None:
    pair = pairs("0.9.5")
    theirs = pair.their_latents(
        media_items=official.pixels(media / "25.mp4"),
        num_inference_steps=8,
        skip_initial_inference_steps=4,
        conditioning_items=[official.item(media / "a.png", 0, 0.8)] if with_picture else None,
    )
    picture = {"image": media / "a.png", "image_strength": 0.8} if with_picture else {}
    ours = pair.our_latents(video=media / "25.mp4", steps=8, skip_initial=4, **picture)
    official.require_same(ours, theirs, unlike=pair.plain)


@pytest.mark.parametrize("stochastic", [False, True])
def test_latents_to_start_from(
    official: ModuleType, pairs: Callable, media: Path, monkeypatch: pytest.MonkeyPatch, stochastic: bool
) -> None:
    pair = pairs("0.9.5")
    latents, times = torch.randn(1, 16, 4, 2, 3), (0.9094, 0.725, 0.4219)
    theirs = pair.their_latents(latents=latents.clone(), timesteps=list(times), stochastic_sampling=stochastic)

    def given_latents(request: GenerationRequest, *_: object) -> torch.Tensor:
        return latents

    monkeypatch.setattr(generate, "start_latents", given_latents)
    ours = pair.our_latents(video=media / "25.mp4", times=times, stochastic=stochastic)
    official.require_same(ours, theirs, unlike=pair.plain)


def test_of_two_conditions_at_one_place_the_later_one_counts_and_traces_of_the_other_stay_in_the_official_code(
    official: ModuleType, pairs: Callable, media: Path
) -> None:
    pair = pairs("0.9.5")
    both = (f"{media / 'a.png'}@0:0.9", f"{media / 'b.png'}@0:0.5")
    ours, later = (pair.our_latents(keyframes=keyframes, noise_layout="openltx") for keyframes in (both, both[1:]))
    assert ours.equal(later)
    theirs = pair.their_latents(
        conditioning_items=[official.item(media / "a.png", 0, 0.9), official.item(media / "b.png", 0, 0.5)]
    )
    assert official.error(pair.our_latents(keyframes=both), theirs) > 100 * official.TOLERANCE
