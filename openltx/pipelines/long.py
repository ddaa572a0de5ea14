"""Videos of any length, made in windows that overlap: the end of one is given to the next as a condition.

Every window is sampled as a video of its own, its time from 0 on, as the released looping sampler does: a model knows
no times beyond the length of its training clips, and in a video's first latent it expects one frame where all others
stand for eight. So the first given latent is made anew: the frame at which it lies is decoded and encoded alone. The
others are handed over as they are, at a strength. Afterwards the first is dropped, and over the rest of the overlap the
video fades from one window's latents to the next one's.

Latents are decoded as they come, in one stream across all windows, so every frame sees its neighbours on both sides.
What is in memory at a time does not grow with the length.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import openltx
from openltx.conditioning import Given
from openltx.flow.adain import adain
from openltx.flow.path import interpolate
from openltx.flow.solvers import Step
from openltx.geometry import LTX_COMPRESSION, unpatchify
from openltx.media.transforms import crop_to, to_frames
from openltx.media.writers import VideoWriter, require_streamable
from openltx.models.bundle import LTXModel
from openltx.models.vae.streaming import decode_pieces
from openltx.noise import derived_generator, randn
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest, Sampling
from openltx.pipelines.windows import LongPlan, Window, Windows, plan_windows

CONTEXT = 2
"""So many latents before the overlap are decoded with it, for the one frame that is encoded anew."""


@dataclass(frozen=True)
class LongStep:
    """One solver step of window ``window`` (from 0) of ``windows``."""

    window: int
    windows: int
    step: Step


@dataclass(frozen=True, kw_only=True)
class LongResult:
    """What was written: ``frames`` of it, fewer than planned if it was stopped."""

    path: Path
    frames: int
    plan: LongPlan
    seconds_taken: float

    @property
    def is_whole(self) -> bool:
        return self.frames == self.plan.request.frames

    @property
    def windows(self) -> int:
        """The windows that were finished."""
        return sum(self.is_whole or window.end <= self.frames for window in self.plan.windows)


Progress = Callable[[LongStep], None]
Stop = Callable[[], bool]


class LongVideo:
    """A loaded model and a way to cut: ``LongVideo(model, Windows(window=97)).save(request, "long.mp4")``."""

    def __init__(self, model: LTXModel, windows: Windows) -> None:
        self.windows = windows
        self.generator = Generator(model)
        self.model = model

    def plan(self, request: GenerationRequest) -> LongPlan:
        """How ``request`` is going to be made; raises ``RequestError`` if it cannot be."""
        return plan_windows(self.generator.resolve(request), self.windows)

    def save(
        self,
        request: GenerationRequest,
        path: Path | str,
        progress: Progress | None = None,
        stop: Stop = lambda: False,
    ) -> LongResult:
        """Make the video and write it to ``path`` (.mp4) as it comes, with request and windows embedded.

        ``progress`` is called after every step. ``stop`` is asked after every step too: once it says True, the windows
        that are finished become a whole, shorter file (none, if it is none).
        """
        started, path = time.perf_counter(), Path(path)
        require_streamable(path)
        plan = self.plan(request)
        pieces, written = self.stream(plan, progress, stop), 0
        first = next(pieces, None)
        if first is not None:
            with VideoWriter(path, plan.request.settings(Sampling()).fps, self._metadata(plan)) as writer:
                writer.write(first)
                written = len(first)
                for frames in pieces:
                    writer.write(frames)
                    written += len(frames)
        seconds = time.perf_counter() - started
        return LongResult(path=path, frames=written, plan=plan, seconds_taken=seconds)

    @torch.inference_mode()
    def stream(
        self, plan: LongPlan, progress: Progress | None = None, stop: Stop = lambda: False
    ) -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
        """The frames as they come, at the requested size."""
        settings, vae, seed = plan.request.settings(Sampling()), self.model.vae, plan.request.seed or 0
        t, scale = self._decoding(settings)
        noised = _noised(self.latents(plan, progress, stop), scale, seed)
        dtype = next(vae.parameters()).dtype
        injected = derived_generator(seed, "decoder")
        left = settings.frames
        for piece in decode_pieces(vae, (latents.to(dtype) for latents in noised), t, settings.tone_map, injected):
            frames = to_frames(piece[0, :, :left].float())
            left -= len(frames)
            if len(frames):
                yield crop_to(frames, settings.height, settings.width)

    @torch.inference_mode()
    def latents(
        self, plan: LongPlan, progress: Progress | None = None, stop: Stop = lambda: False
    ) -> Iterator[Float[Tensor, "1 c f h w"]]:
        """Clean latents of the long video, piece by piece; a latent comes once no later window changes it."""
        given = self.windows.given
        reference = video = None
        done = 0  # latents at the front of ``video`` that have been handed out
        for window in plan.windows:
            made = None if stop() else self._sample(plan, window, video, progress, stop)
            if made is None:
                break
            if video is None or reference is None:
                reference = video = made
            else:
                made = adain(made, reference, self.windows.adain) if self.windows.adain else made
                video = cross_fade(video, made, given)
            settled = video.shape[2] - (given - 1)
            yield video[:, :, done:settled]
            forgotten = max(video.shape[2] - given - CONTEXT, 0)
            video, done = video[:, :, forgotten:], settled - forgotten
        if video is not None and done < video.shape[2]:
            yield video[:, :, done:]

    def _sample(
        self, plan: LongPlan, window: Window, before: Tensor | None, progress: Progress | None, stop: Stop
    ) -> Float[Tensor, "1 c f h w"] | None:
        """One window's clean latents, the overlap included; None if it was stopped on the way."""
        items = [] if before is None else [self._overlap(before, window)]
        prepared = self.generator.prepare(window.request, items)
        clean = prepared.state.targets
        for step in self.generator.sample(prepared):
            clean = step.clean[:, -prepared.state.num_targets :]
            if progress is not None:
                progress(LongStep(window.index, len(plan.windows), step))
            if step.index + 1 < step.total and stop():
                return None
        return unpatchify(clean, prepared.grid)

    def _overlap(self, before: Float[Tensor, "1 c f h w"], window: Window) -> Given:
        """The last latents so far as a condition at frame 0: the first of them as the single frame it ends with."""
        settings, vae, given = window.request.settings(Sampling()), self.model.vae, self.windows.given
        t, scale = self._decoding(settings)
        noise = derived_generator(window.request.seed or 0, "overlap")
        clip = before[:, :, -given - CONTEXT :]
        place = LTX_COMPRESSION.time * (clip.shape[2] - given)
        pixels = vae.decode(clip.to(next(vae.parameters()).dtype), t, scale, 0.0, noise)
        frame = vae.encode(pixels[:, :, place : place + 1].clamp(-1, 1)).to(before)
        latents = torch.cat([frame, before[:, :, before.shape[2] - given + 1 :]], 2)
        return Given(latents=latents, strength=self.windows.overlap_strength)

    def _decoding(self, settings: Sampling) -> tuple[float | None, float]:
        """The noise level that the decoder is told, and how much noise clean latents get for it."""
        if not self.model.vae.config.timestep_conditioning:
            return None, 0.0
        t = settings.decode_timestep
        return t, t if settings.last_step == "decoder" else settings.decode_noise_scale

    def _metadata(self, plan: LongPlan) -> dict[str, str]:
        return {
            "request": plan.request.to_json(),
            "windows": json.dumps(asdict(self.windows)),
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "openltx": openltx.__version__,
        }


def generate_long(
    model: LTXModel,
    request: GenerationRequest,
    path: Path | str,
    windows: Windows,
    progress: Progress | None = None,
    stop: Stop = lambda: False,
) -> LongResult:
    """Make a video longer than the model's own and write it to ``path`` (.mp4) as it comes.

    A prompt of several parts, "a red ball rolls | it stops", changes on the way. Example:
    ``generate_long(model, GenerationRequest("a red ball rolls", frames=241), "long.mp4", Windows(window=49))``.
    """
    return LongVideo(model, windows).save(request, path, progress, stop)


def cross_fade(
    before: Float[Tensor, "1 c f h w"], after: Float[Tensor, "1 c f2 h w"], given: int
) -> Float[Tensor, "1 c f3 h w"]:
    """Two windows' latents as one video. The last ``given`` of ``before`` are the first of ``after``.

    The first of ``after`` is dropped, since it stands for one frame only; over the others the video fades, linearly.
    """
    kept = before.shape[2] - (given - 1)
    weight = torch.arange(1, given, device=after.device, dtype=after.dtype) / given
    faded = torch.lerp(before[:, :, kept:], after[:, :, 1:given], weight[:, None, None])
    return torch.cat([before[:, :, :kept], faded, after[:, :, given:]], 2)


def _noised(
    pieces: Iterator[Float[Tensor, "1 c f h w"]], scale: float, seed: int
) -> Iterator[Float[Tensor, "1 c 1 h w"]]:
    """Latent by latent with the decoder's noise mixed in: a latent's noise depends on its place alone."""
    place = 0
    for piece in pieces:
        for latent in piece.split(1, 2):
            generator = derived_generator(seed, "decode", place)
            noise = randn(latent.shape, generator, device=latent.device, dtype=latent.dtype)
            yield interpolate(latent, noise, latent.new_tensor(scale)) if scale else latent
            place += 1
