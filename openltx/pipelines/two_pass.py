"""Two passes: a small video first, its latents enlarged, then refined at full size. (Released since 0.9.7.)

    first pass     sampled at the size times ``downscale``, rounded down to the 32-pixel grid      z1
    enlarged       un-normalised, upsampled by two, normalised, AdaIN against z1                   ``pipelines.upscale``
    second pass    noised to its first time, and sampled from there, at twice the first size
    result         decoded, and its pixels resized to the size that was asked for

With downscale 2/3 the second pass is 4/3 of the size asked for, so the result is supersampled. The second pass can also
refine a video that exists (a request's ``video``), then with any upscaler: one that enlarges time as well.

One seed serves both passes, and the prompt is encoded once. Given pictures and clips are encoded at either pass's size.
"""

import builtins
import json
import math
import secrets
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openltx.errors import RequestError
from openltx.flow.path import TokenState
from openltx.flow.solvers import Step
from openltx.geometry import LatentShape, VideoShape, unpatchify
from openltx.media.transforms import crop_to, resize, to_frames
from openltx.models.bundle import LTXModel
from openltx.models.text import TextEncoder
from openltx.noise import derived_seed
from openltx.pipelines.generate import Generator, Prepared, Video, curve_of
from openltx.pipelines.remembered import RememberedTexts
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples
from openltx.pipelines.upscale import Upscaler, encoded, enlarge, result_shape, source_shape

SKIPPED_STEPS = 17 / 30
"""The part of the steps that the second pass leaves out where nothing says when it starts, as for 0.9.8-dev."""

_NOT_OF_A_PASS = frozenset(("frames", "width", "height", "fps"))
_PASS_SETTINGS = tuple(f.name for f in fields(Sampling) if f.name not in _NOT_OF_A_PASS)


@dataclass(frozen=True, kw_only=True)
class TwoPass:
    """How a release makes a video in two passes.

    downscale   the first pass is this much smaller than asked for, in width and height, rounded down to 32 pixels
    first       settings of the first pass: fields of ``Sampling``
    second      settings of the second pass, at twice the size of the first

    They lie over the settings of the model, and what a request says itself lies over them. Raises ``RequestError`` for
    a name that is none, or that both passes must share (frames, size, fps).
    """

    downscale: float = 2 / 3
    first: Mapping[str, Any] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.downscale <= 1:
            raise RequestError(f"downscale={self.downscale} is not possible: it must be above 0 and at most 1.")
        for name in (*self.first, *self.second):
            if name not in _PASS_SETTINGS:
                raise RequestError(
                    f'"{name}" is not a setting of one of two passes. Possible are {", ".join(_PASS_SETTINGS)}.'
                )

    def to_json(self) -> str:
        """These settings as one JSON object."""
        return json.dumps({"downscale": self.downscale, "first": dict(self.first), "second": dict(self.second)})

    @staticmethod
    def from_json(text: str) -> "TwoPass":
        """The inverse of ``to_json``; raises ``RequestError`` for anything that is not such an object."""
        try:
            values = dict(json.loads(text))
            first, second = (settings_from_json(values.pop(name, {})) for name in ("first", "second"))
            return TwoPass(first=first, second=second, **values)
        except (TypeError, ValueError, AttributeError) as error:
            raise RequestError(f"These are not settings of two passes: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Both passes of a request, with nothing left open.

    request    the whole: what makes the video again, together with the pass settings of ``as_two_pass``
    framing    the size of the finished video with its padding, for which given pictures are scaled and cropped; the
               second pass's pixels are stretched to it
    first      None where the video to enlarge is given
    """

    request: GenerationRequest
    framing: VideoShape
    first: GenerationRequest | None
    second: GenerationRequest

    def as_two_pass(self, downscale: float) -> TwoPass:
        """The settings that both passes have in the end."""
        return TwoPass(
            downscale=downscale,
            first={} if self.first is None else _settings_of(self.first),
            second=_settings_of(self.second),
        )


def settings_from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a pass with JSON's numbers and lists as ``Sampling`` has them; ``RequestError`` for other kinds."""
    kinds, settings = get_type_hints(Sampling), {}
    for name, value in values.items():
        try:
            settings[name] = _as_kind(value, kinds[name]) if name in kinds else value
        except ValueError as error:
            raise RequestError(f"{name}={value!r} is not possible in a pass: it is a {kinds[name]}.") from error
    return settings


class TwoPassGenerator:
    """A loaded model and an upscaler, ready to make videos in two passes.

    ``TwoPassGenerator(model, upscaler)(request)`` gives a ``Video``. ``second_model`` makes the second pass, if it is
    another: a distilled model after a dev one, for example. It shares the first one's VAE and, where it can, its text
    encoder. ``first`` and ``second`` are the generators of the passes; ``plan``, ``first_latents``, ``prepare_second``,
    ``sampled`` and ``decode_stream`` are the parts of the whole.

    Raises ``RequestError`` for models whose latents are not of one kind.
    """

    def __init__(
        self,
        model: LTXModel,
        upscaler: Upscaler,
        passes: TwoPass | None = None,
        *,
        second_model: LTXModel | None = None,
    ) -> None:
        self.passes = TwoPass() if passes is None else passes
        self.upscaler = upscaler
        second = model if second_model is None else second_model
        _require_one_latent_space(model, second)
        text = None if model.text is None else RememberedTexts(model.text)
        self.first = Generator(replace(model, text=text))
        self.second = Generator(replace(second, vae=model.vae, text=_text_of_second(text, second)))

    @property
    def model(self) -> LTXModel:
        """The first pass's model, under whose name the video goes."""
        return self.first.model

    def __call__(
        self,
        request: GenerationRequest,
        progress: Callable[[Step], None] | None = None,
        *,
        latents: Float[Tensor, "1 c f h w"] | None = None,
    ) -> Video:
        """Make one video; ``progress`` is called after each step, counted over both passes.

        With ``latents`` (normalised) or a request's ``video`` there is no first pass: they are enlarged and refined.
        (Latents are not in the file of the video: it cannot be made again from the file alone.) Raises ``RequestError``
        before any work is done.
        """
        started = time.perf_counter()
        plan, prepared, state = self.sampled(request, progress, latents=latents)
        frames = np.concatenate(list(self.decode_stream(plan, prepared, state)))
        return Video(
            frames=frames,
            fps=prepared.settings.fps,
            request=plan.request,
            model=self.first.model.name,
            fingerprint=self.first.model.fingerprint,
            seconds_taken=time.perf_counter() - started,
            loras=self.first.model.loras,
            details=self.details(plan),
        )

    def sampled(
        self,
        request: GenerationRequest,
        progress: Callable[[Step], None] | None = None,
        *,
        latents: Float[Tensor, "1 c f h w"] | None = None,
    ) -> tuple[Plan, Prepared, TokenState]:
        """Both passes, up to what ``decode_stream`` makes frames of; arguments as in a call."""
        plan = self.plan(request, latents)
        self._read_prompts(plan)
        before = 0 if plan.first is None else self.first.num_steps(plan.first)
        total = before + self.second.num_steps(plan.second)

        def tell(step: Step, offset: int = 0) -> None:
            if progress is not None:
                progress(replace(step, index=offset + step.index, total=total))

        if latents is None:
            latents = self.first_latents(plan, tell)
        prepared = self.prepare_second(plan, latents)
        plan = replace(plan, request=replace(plan.request, tile=prepared.request.tile))
        state = prepared.state
        for step in self.second.sample(prepared):
            state = step.state
            tell(step, before)
        return plan, prepared, state

    def plan(self, request: GenerationRequest, latents: Float[Tensor, "1 c f h w"] | None = None) -> Plan:
        """Both passes' requests and sizes; raises ``RequestError`` if they cannot be served.

        A request's own skip_initial, and times that begin below 1, are for the second pass; times from 1 on are for the
        first.
        """
        if request.mask is not None:
            raise RequestError("An edit in place (mask) is made in one pass: leave the upscaler out.")
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        request = replace(request, seed=seed)
        if request.video is not None or latents is not None:
            return self._plan_of_given(request, latents)

        settings = request.settings(Sampling(**as_tuples(self.first.model.sampling)))
        if request.fit == "exact":
            settings.shape.require_on_grid()
        if self.upscaler.network.config.enlarges != "space":
            raise RequestError(
                f"Two passes need an upscaler for space; {self.upscaler.name} enlarges "
                f"{self.upscaler.network.config.enlarges}. Use a spatial one, or give the video that is to be enlarged."
            )
        framing = settings.shape.padded()
        width, height = (first_side(side, self.passes) for side in (framing.width, framing.height))
        request = replace(request, size=f"{settings.width}x{settings.height}", frames=settings.frames, fps=settings.fps)
        return Plan(
            request=request,
            framing=framing,
            first=self.first.resolve(first_request(request, self.passes, width, height)),
            second=self._second_request(request, 2 * width, 2 * height),
        )

    def first_latents(self, plan: Plan, progress: Callable[[Step], None] | None = None) -> Float[Tensor, "1 c f h w"]:
        """The normalised latents to enlarge: the first pass's, or those of the given video."""
        if plan.first is None:
            video = plan.request.video or ""
            return encoded(self.first.model.vae, video, source_shape(video, plan.request.fit)).float()
        prepared = self.first.prepare(plan.first, framing=plan.framing)
        state = prepared.state
        for step in self.first.sample(prepared):
            state = step.state
            if progress is not None:
                progress(step)
        return unpatchify(state.targets, prepared.grid)

    def prepare_second(self, plan: Plan, latents: Float[Tensor, "1 c f h w"]) -> Prepared:
        """The second pass, from the first pass's ``latents``."""
        larger = enlarge(self.upscaler, self.first.model.vae, latents)
        return self.second.prepare(plan.second, latents=larger, framing=plan.framing)

    @torch.inference_mode()
    def decode_stream(
        self, plan: Plan, prepared: Prepared, state: TokenState
    ) -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
        """The finished frames in pieces: decoded at the second pass's size, resized, and cropped."""
        shown = plan.request.settings(Sampling())
        for pixels in self.second.decode_pixels(prepared, state):
            resized = resize(pixels.clamp(-1, 1), plan.framing.height, plan.framing.width)
            yield crop_to(to_frames(resized), shown.height, shown.width)

    def _plan_of_given(self, request: GenerationRequest, latents: Tensor | None) -> Plan:
        """A second pass only, over a video that exists: its size and length say those of the result."""
        settings = request.settings(Sampling(**as_tuples(self.second.model.sampling)))
        if latents is None:
            source = source_shape(request.video or "", request.fit)
        else:
            f, h, w = latents.shape[2:]
            source = LatentShape(frames=f, height=h, width=w).video(settings.fps)
        goal, worked = result_shape(self.upscaler, source), result_shape(self.upscaler, source.padded())
        fps = goal.fps if latents is None else settings.fps
        size = f"{goal.width}x{goal.height}"
        if request.size not in (None, size) or request.frames not in (None, goal.frames):
            raise RequestError(
                f"The given video becomes {goal.frames} frames of {size} with this upscaler: leave out size and frames."
            )
        request = replace(request, size=size, frames=goal.frames, fps=request.fps or fps)
        return Plan(
            request=request,
            framing=worked,
            first=None,
            second=self._second_request(request, worked.width, worked.height),
        )

    def _second_request(self, request: GenerationRequest, width: int, height: int) -> GenerationRequest:
        defaults = Sampling(**as_tuples(self.second.model.sampling))
        return self.second.resolve(second_request(request, self.passes, defaults, width, height), has_latents=True)

    def _read_prompts(self, plan: Plan) -> None:
        """Have all that the passes will ask for encoded at once."""
        for generator, request in ((self.first, plan.first), (self.second, plan.second)):
            if request is not None and generator.model.text is not None:
                texts = [request.prompt.strip()]
                if curve_of(request.settings(Sampling())).needs_negative:
                    texts.append((request.negative or "").strip())
                generator.model.text.encode(texts)

    def details(self, plan: Plan) -> dict[str, str]:
        """What a file says beside the request: with both models and these settings it is made again."""
        second = self.second.model
        return {
            "two_pass": plan.as_two_pass(self.passes.downscale).to_json(),
            "upscaler": self.upscaler.name,
            "upscaler_fingerprint": self.upscaler.fingerprint,
            "second_model": second.name,
            "second_fingerprint": second.fingerprint,
        }


def first_side(side: int, passes: TwoPass) -> int:
    """A side of the first pass's video; raises ``RequestError`` if nothing is left of it."""
    first = int(side * passes.downscale) // 32 * 32
    if first == 0:
        raise RequestError(
            f"{side} pixels times {passes.downscale:.3g} leave the first pass less than 32. Ask for a video of at "
            f"least {32 * math.ceil(1 / passes.downscale)} pixels a side, for a larger downscale, or for one pass."
        )
    return first


def first_request(request: GenerationRequest, passes: TwoPass, width: int, height: int) -> GenerationRequest:
    """What the first pass is asked for, its model's settings still open."""
    partial = request.times is not None and request.times[0] < 1
    request = replace(request, skip_initial=None, times=None if partial else request.times)
    request = _with_settings(request, passes.first)
    # it is not decoded, so its sampler goes to 0
    return replace(request, size=f"{width}x{height}", last_step="renoise", decode_timestep=None)


def second_request(
    request: GenerationRequest, passes: TwoPass, defaults: Sampling, width: int, height: int
) -> GenerationRequest:
    """What the second pass is asked for; ``defaults`` are its model's settings."""
    whole = request.times is not None and request.times[0] == 1
    own = _with_settings(replace(request, times=None if whole else request.times), passes.second)
    own = _starting_later(own, defaults)
    return replace(own, size=f"{width}x{height}", video=None, seed=derived_seed(request.seed or 0, "second pass"))


def _with_settings(request: GenerationRequest, settings: Mapping[str, Any]) -> GenerationRequest:
    """The request with what it leaves open filled in from a pass's settings."""
    return replace(request, **{name: value for name, value in settings.items() if getattr(request, name) is None})


def _as_kind(value: Any, kind: Any) -> Any:
    """A value of JSON as a type of ``Sampling``'s fields; ValueError if it is of another."""
    choices = get_args(kind)
    match get_origin(kind):
        case types.UnionType | typing.Union:
            for choice in choices:
                with suppress(ValueError):
                    return _as_kind(value, choice)
        case typing.Literal if value in choices:
            return value
        case builtins.tuple if isinstance(value, list | tuple):
            return tuple(_as_kind(one, choices[0]) for one in value)
        case None if kind is float and type(value) in (int, float):
            return float(value)
        case None if type(value) is kind:
            return value
    raise ValueError


def _starting_later(request: GenerationRequest, defaults: Sampling) -> GenerationRequest:
    """The second pass's request; it leaves out a part of the steps if nothing says from where it starts."""
    settings = request.settings(defaults)
    if settings.times is None:
        skip = settings.skip_initial or int(settings.steps * SKIPPED_STEPS)
        return replace(request, skip_initial=skip)
    if settings.times[0] < 1:
        return request
    return replace(request, times=settings.times[int(len(settings.times) * SKIPPED_STEPS) :])


def _settings_of(request: GenerationRequest) -> dict[str, Any]:
    """A resolved pass's own settings."""
    resolved = asdict(request.settings(Sampling()))
    return {name: resolved[name] for name in _PASS_SETTINGS if resolved[name] is not None}


def _text_of_second(text: TextEncoder | None, second: LTXModel) -> TextEncoder | None:
    """The second model's text encoder: the first one's where it serves."""
    if second.text is not None and (text is None or text.name != second.text.name):
        return RememberedTexts(second.text)
    wanted = second.transformer.config.caption_channels
    if text is not None and text.channels != wanted:
        raise RequestError(
            f'"{second.name}" reads captions of {wanted} channels and names no text encoder of its own; the first '
            f"model's, {text.name}, has {text.channels}. Use two models with the same text encoder."
        )
    return text


def _require_one_latent_space(first: LTXModel, second: LTXModel) -> None:
    """Raise unless both models' VAEs scale the same latents alike."""
    ours, theirs = first.vae.per_channel_statistics, second.vae.per_channel_statistics
    if ours.mean.shape != theirs.mean.shape or not all(
        torch.allclose(a.float().cpu(), b.float().cpu(), rtol=0.02, atol=0.02)
        for a, b in ((ours.mean, theirs.mean), (ours.std, theirs.std))
    ):
        raise RequestError(
            f'"{first.name}" and "{second.name}" have different latents, so one cannot go on from the other. Use two '
            "models with the same VAE: those of 0.9.5 and later have."
        )
