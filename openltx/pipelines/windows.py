"""How a long video is cut into windows that overlap, and what each of them shows.

    window 0      |0 1 2 3 4 5 6 7 8|                  latent frames
    window 1                 |0 1 2 3 4 5 6 7 8|       the first three are given: an overlap of 17 frames
    the video     |0 1 2 3 4 5 6 7 8 . . . . . .|

All of it is known before anything is sampled, and checked. ``pipelines.long`` makes the video.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from openltx.errors import RequestError
from openltx.geometry import LTX_COMPRESSION
from openltx.noise import derived_seed
from openltx.pipelines.given import Keyframe, check_given, frames_of, keyframes_of
from openltx.pipelines.request import GenerationRequest, Sampling


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How a long video is cut; raises ``RequestError`` where a value makes no sense by itself."""

    window: int
    """Frames made at a time (8k+1): makes a video longer than the model's own, in windows, written as it comes."""
    overlap: int = 17
    """Frames that a window takes over from the one before (8k+1)."""
    overlap_strength: float = 1.0
    """How firmly a window is held to what it takes over, above 0 and up to 1."""
    adain: float = 0.0
    """Against drift: how far each window takes over the first one's latent statistics, 0 (off) to 1."""

    def __post_init__(self) -> None:
        for name in ("window", "overlap"):
            frames, multiple = getattr(self, name), LTX_COMPRESSION.time
            if frames < 1 or frames % multiple != 1:
                low = max(frames - 1, 0) // multiple * multiple + 1
                raise RequestError(f"{name}={frames} is not 8k + 1 frames. The nearest are {low} and {low + multiple}.")
        if self.overlap >= self.window:
            raise RequestError(
                f"overlap={self.overlap} leaves nothing to make in a window of {self.window} frames. Make it smaller; "
                "a fifth of the window is usual."
            )
        if not 0 < self.overlap_strength <= 1:
            raise RequestError(f"overlap_strength={self.overlap_strength} must be above 0 and at most 1.")
        if not 0 <= self.adain <= 1:
            raise RequestError(f"adain={self.adain} must be from 0 (off) to 1.")

    @property
    def given(self) -> int:
        """Latent frames of the overlap."""
        return _latents(self.overlap)


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window: its place in the long video, and the request that is sampled for it.

    ``start`` is the frame of the long video that is frame 0 of the window; ``frames`` counts the overlap too.
    """

    index: int
    start: int
    frames: int
    request: GenerationRequest

    @property
    def end(self) -> int:
        """How many frames the long video has when this window is done."""
        return self.start + self.frames


@dataclass(frozen=True, kw_only=True)
class LongPlan:
    """A long video before it is made: the resolved request, and the windows in which it is going to be made."""

    request: GenerationRequest
    windows: tuple[Window, ...]


def plan_windows(request: GenerationRequest, windows: Windows) -> LongPlan:
    """Cut a resolved request into windows of (nearly) equal length, none longer than asked.

    Prompts and keyframes go to the windows they belong to, and every window gets a seed of its own (the first the
    request's). Raises ``RequestError`` or ``MediaError`` for what cannot be made so.
    """
    for name in ("video", "mask", "reference"):
        if getattr(request, name) is not None:
            raise RequestError(
                f"A long video in windows takes no {name}. Give image or keyframes, or make it in one piece: leave out "
                "window."
            )
    settings = request.settings(Sampling())
    shape = settings.shape.padded()
    spans = cut(shape.frames, windows.window, windows.overlap)
    prompts = spread(split_prompt(request.prompt), len(spans))
    keyframes = _by_window(keyframes_of(request, shape), spans, windows.overlap)
    seed = request.seed or 0
    planned = []
    for index, span in enumerate(spans):
        own = replace(
            request,
            prompt=prompts[index],
            image=None,
            keyframes=tuple(map(str, keyframes[index])),
            frames=len(span),
            seed=seed if index == 0 else derived_seed(seed, "window", index),
        )
        check_given(own, own.settings(Sampling()))
        planned.append(Window(index=index, start=span.start, frames=len(span), request=own))
    return LongPlan(request=request, windows=tuple(planned))


def cut(frames: int, window: int, overlap: int) -> list[range]:
    """The frames of each window, 8k + 1 of them, the next one's beginning ``overlap`` before the end of the last one's.

    As few windows as possible, and of those the lengths differ by at most 8 frames.
    """
    total, longest, given = map(_latents, (frames, window, overlap))
    if total <= longest:
        return [range(frames)]
    count = math.ceil((total - given) / (longest - given))
    least, more = divmod(total - given, count)
    new = [least + (index < more) for index in range(count)]
    starts = [0, *accumulate(new[:-1])]
    time = LTX_COMPRESSION.time
    return [range(time * a, time * (a + given + n - 1) + 1) for a, n in zip(starts, new, strict=True)]


def split_prompt(prompt: str) -> list[str]:
    r"""The parts of a prompt between bars; ``\|`` is a bar that is meant as such."""
    parts = [part.replace(r"\|", "|").strip() for part in re.split(r"(?<!\\)\|", prompt)]
    if not all(parts):
        raise RequestError(
            f'The prompt "{prompt}" has an empty part. In a long video, "|" separates what happens in turn; '
            r"write \| for a bar that is meant as such."
        )
    return parts


def join_prompt(parts: Sequence[str]) -> str:
    """The prompt of which ``split_prompt`` gives these parts."""
    return " | ".join(part.replace("|", r"\|") for part in parts)


def spread(prompts: Sequence[str], windows: int) -> list[str]:
    """A prompt for each window, in order, each of them for (nearly) as many."""
    if len(prompts) > windows:
        raise RequestError(
            f"The prompt has {len(prompts)} parts, but the video is made in {windows} windows. Ask for more frames or "
            "a smaller window, or give fewer parts."
        )
    return [prompts[index * len(prompts) // windows] for index in range(windows)]


def _by_window(keyframes: Sequence[Keyframe], spans: Sequence[range], overlap: int) -> list[list[Keyframe]]:
    """Each keyframe, with its frame counted from there, in the first window that makes all of its frames itself."""
    found: list[list[Keyframe]] = [[] for _ in spans]
    for keyframe in keyframes:
        begun = [i for i, span in enumerate(spans) if keyframe.frame in (span[overlap - 1 :] if i else span)]
        if not begun:
            raise RequestError(
                f"{keyframe.path} is to be shown at frame {keyframe.frame}, but the video has the frames 0 to "
                f"{spans[-1].stop - 1}."
            )
        last = keyframe.frame + len(frames_of(keyframe)) - 1
        index = next((i for i in begun if last in spans[i]), begun[0])
        found[index].append(replace(keyframe, frame=keyframe.frame - spans[index].start))
    return found


def _latents(frames: int) -> int:
    return (frames - 1) // LTX_COMPRESSION.time + 1
