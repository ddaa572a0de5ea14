"""One generation, as the paper tells it: prepare, sample, decode.

    text -> context, request -> conditioned tokens      prepare     (paper 2.2 to 2.4)
    Euler steps of the guided velocity from t = 1       sample      (paper 2.5)
    tokens -> latents -> the decoder's own last step    decode      (paper 2.1, 3.1)

Text-to-video and image-to-video are the same call; they differ only in which tokens are held clean. With
``last_step="decoder"`` the sampler stops at t1 = ``decode_timestep`` and the decoder receives z_t1 and t1 (paper 3.1);
with "renoise" it goes to 0 and the decoder is given a little fresh noise, as the released code does.
"""

import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Concatenate, ParamSpec

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import openltx
from openltx.conditioning import Item, initial_state
from openltx.errors import RequestError
from openltx.flow.guidance import GuidanceCurve, guidance_curve
from openltx.flow.path import TokenState, interpolate
from openltx.flow.schedule import part_of, require_allowed
from openltx.flow.solvers import Step, steps_of
from openltx.geometry import LatentShape, VideoShape, patchify, unpatchify
from openltx.media.contact_sheet import contact_sheet
from openltx.media.io import write_video
from openltx.media.transforms import crop_to, resize, to_frames
from openltx.models.bundle import LTXModel
from openltx.models.lora import UsedLoRA
from openltx.models.text import PromptStates
from openltx.models.vae.streaming import decode_stream
from openltx.models.vae.tiling import Tile, decode_tiles
from openltx.noise import randn
from openltx.pipelines.canvas import on_disk
from openltx.pipelines.draws import as_tokens, seeded_draws
from openltx.pipelines.fitting import fitted
from openltx.pipelines.given import check_given, given_items, start_latents
from openltx.pipelines.plan import WHOLE_DECODE_TOKENS
from openltx.pipelines.prepared import Prepared, sample_together, stop_of
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples
from openltx.pipelines.texts import given_states, token_states
from openltx.pipelines.velocity import prompts_of

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Video:
    """A finished video: ``frames`` (F H W 3) uint8, and the resolved ``request`` that makes it again.

    ``details`` is what else a file of it says: what two passes were made with, for example.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    fps: float
    request: GenerationRequest
    model: str
    fingerprint: str
    seconds_taken: float
    loras: tuple[UsedLoRA, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path | str) -> Sequence[Path]:
        """Write to ``path`` by its suffix (.mp4, .gif, .webp, .png) with the request embedded; gives the files written.

        Several frames as .png become ``name-0001.png`` and so on. Raises ``MediaError``; then no file is left behind.
        """
        metadata = embedded(self.request, self.model, self.fingerprint, self.seconds_taken, self.loras, self.details)
        return write_video(path, self.frames, self.fps, metadata)

    def contact_sheet(self, path: Path | str) -> None:
        """Write some of the frames side by side, captioned with the prompt, as one picture."""
        contact_sheet([(self.request.prompt, self.frames)]).save(Path(path))


class Generator:
    """A loaded model, ready to make videos.

    ``Generator(model)(request)`` gives a ``Video``. Its three parts can be called one by one, to show, stop or replace
    what happens between them: ``prepare(request)``, then ``for step in sample(prepared)``, then
    ``decode(prepared, step.state)``.
    """

    def __init__(self, model: LTXModel) -> None:
        self.model = model
        weight = next(model.transformer.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    def __call__(self, request: GenerationRequest, progress: Callable[[Step], None] | None = None) -> Video:
        """Make one video; ``progress`` is called after each step. Raises ``RequestError`` before any work is done."""
        started = time.perf_counter()
        prepared = self.prepare(request)
        state = prepared.state
        for step in self.sample(prepared):
            state = step.state
            if progress is not None:
                progress(step)
        frames = self.decode(prepared, state)
        return Video(
            frames=frames,
            fps=prepared.settings.fps,
            request=prepared.request,
            model=self.model.name,
            fingerprint=self.model.fingerprint,
            seconds_taken=time.perf_counter() - started,
            loras=self.model.loras,
        )

    def resolve(self, request: GenerationRequest, *, has_latents: bool = False) -> GenerationRequest:
        """The request with this model's own settings filled in; raises ``RequestError`` if it cannot be served.

        ``has_latents``: ``prepare`` will be given latents to start from.
        """
        defaults = Sampling(**as_tuples(self.model.sampling))
        self._require_blocks(request.settings(defaults))
        resolved = self._resolved(request, defaults, has_latents)
        settings = resolved.settings(Sampling())
        require_allowed(self._times(settings, settings.shape.padded().latent()), self.model.allowed_times)
        return resolved

    def _resolved(self, request: GenerationRequest, defaults: Sampling, has_latents: bool) -> GenerationRequest:
        if self.model.vae.config.timestep_conditioning:
            return request.resolve(defaults, has_latents=has_latents)
        if request.last_step == "decoder" or request.decode_timestep:
            raise RequestError(
                f'The VAE of "{self.model.name}" has no timestep conditioning, so its decoder cannot denoise. '
                "Leave last_step and decode_timestep out."
            )
        return request.resolve(replace(defaults, last_step="renoise", decode_timestep=0.0), has_latents=has_latents)

    def num_steps(self, request: GenerationRequest) -> int:
        """How many steps ``sample`` takes for a resolved request."""
        settings = request.settings(Sampling())
        return len(steps_of(self._times(settings, settings.shape.padded().latent()), stop_of(settings)))

    @torch.inference_mode()
    def prepare(
        self,
        request: GenerationRequest,
        also: Sequence[Item] = (),
        *,
        embeddings: PromptStates | None = None,
        noise: Float[Tensor, "1 ..."] | None = None,
        latents: Float[Tensor, "1 c f h w"] | None = None,
        framing: VideoShape | None = None,
    ) -> Prepared:
        """Encode the prompt and the picture, and draw the noise.

        also         further conditions, as latents
        embeddings   the prompt's token states, and the negative prompt's, in place of a text encoder
        noise        the noise that the video begins as, in place of the seed's: tokens (1 n c) or latents (1 c f h w)
        latents      normalised latents to start from, noised to the first time (the request leaves out first steps)
        framing      the size for which given pictures are scaled and cropped, before they are stretched to the
                     request's: that of the finished video where its frames are resized in the end
        """
        request, embeddings = given_states(request, embeddings)
        has_latents = latents is not None
        request = fitted(self.model, self.resolve(request, has_latents=has_latents), self.device, has_latents)
        settings = request.settings(Sampling())
        check_given(request, settings)
        grid = settings.shape.padded().latent()
        draws = seeded_draws(request.noise_layout, request.seed or 0, grid)
        curve = curve_of(settings)
        texts = token_states(self.model, request, embeddings, negative=curve.needs_negative)

        framed = settings if framing is None else replace(settings, width=framing.width, height=framing.height)
        encode = functools.partial(self._encode, size=settings.shape.padded(), generator=draws.posterior)
        video = None if request.video is None else start_latents(request, framed, encode)
        items = [*given_items(request, framed, video, encode), *also]
        times = self._times(settings, grid)
        first = video if latents is None else _fitting(latents, grid)
        channels, causal = self.model.transformer.config.in_channels, self.model.transformer.config.causal_positions
        start = draws.start(channels) if noise is None else as_tokens(noise.float(), grid, channels)
        start = start.to(self.device)
        if first is not None and times[0] < 1:
            start = interpolate(patchify(first.to(start)), start, times[:1])
        state = initial_state(start, grid, settings.fps, items, causal=causal, draw=draws.extra)
        return Prepared(
            request=request,
            settings=settings,
            grid=grid,
            state=state,
            times=times,
            curve=curve,
            texts=texts,
            prompts=prompts_of(self.model.transformer, [texts], state.positions),
            draws=draws,
        )

    def sample(self, prepared: Prepared) -> Iterator[Step]:
        """The solver's steps; the last one's state is z_0, or z_t1 for ``last_step="decoder"``."""
        return (step for (step,) in sample_together(self.model.transformer, [prepared]))

    def decode(self, prepared: Prepared, state: TokenState) -> UInt8[np.ndarray, "F H W 3"]:
        """Tokens to frames of the requested size; any step's state will do (a preview of the video so far)."""
        return np.concatenate(list(self.decode_stream(prepared, state)))

    def decode_stream(self, prepared: Prepared, state: TokenState) -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
        """``decode`` in pieces as they come: a long video never lies in memory as a whole. Small ones are one piece."""
        settings = prepared.settings
        for pixels in self.decode_pixels(prepared, state):
            yield crop_to(to_frames(pixels), settings.height, settings.width)

    @torch.inference_mode()
    def decode_pixels(self, prepared: Prepared, state: TokenState) -> Iterator[Float[Tensor, "3 F H W"]]:
        """The pieces of ``decode_stream`` before they are cropped and rounded: float32, in about [-1, 1]."""
        settings, vae = prepared.settings, self.model.vae
        noise = prepared.draws.of_decoder(
            prepared.state.tokens.shape, len(prepared.times) if settings.stochastic else 0
        )
        t = settings.decode_timestep if vae.config.timestep_conditioning else None
        if settings.last_step == "decoder":
            tokens, noise_scale = _raise_to_level(state, settings.decode_timestep, noise), 0.0
        else:
            tokens, noise_scale = state.targets, settings.decode_noise_scale
            if t is not None:
                tokens, noise_scale = prepared.draws.mixed(tokens, noise_scale, noise)
        latents = unpatchify(tokens, prepared.grid).to(next(vae.parameters()).dtype)
        if prepared.request.tile:
            tile = Tile(prepared.request.tile)
            pieces = decode_tiles(vae, latents, t, noise_scale, settings.tone_map, noise, tile=tile, canvas=on_disk)
        elif prepared.grid.num_tokens <= WHOLE_DECODE_TOKENS:
            pieces = iter([vae.decode(latents, t, noise_scale, settings.tone_map, noise)])
        else:
            pieces = decode_stream(vae, latents, t, noise_scale, settings.tone_map, noise)
        left = settings.frames
        for piece in pieces:
            pixels = piece[0, :, :left].float()
            left -= pixels.shape[1]
            if pixels.shape[1]:
                yield pixels

    def _require_blocks(self, settings: Sampling) -> None:
        """Raise ``RequestError`` if a step weakens blocks that the transformer does not have, or none at all."""
        count = self.model.transformer.config.num_layers
        for guidance in curve_of(settings).values:
            outside = [block for block in guidance.skip_blocks if not 0 <= block < count]
            if guidance.needs_weak and (outside or not guidance.skip_blocks):
                asked = f"skip_blocks={outside}" if outside else "stg without skip_blocks"
                raise RequestError(
                    f'{asked} is not possible: the transformer of "{self.model.name}" has the blocks 0 to {count - 1}.'
                )

    def _times(self, settings: Sampling, grid: LatentShape) -> Float[Tensor, "steps"]:
        """The times at which the transformer is called: the request's own, or a part of the model's schedule."""
        if settings.times is not None:
            return torch.tensor(settings.times)
        times = self.model.schedule.times(settings.steps, grid.num_tokens)
        return part_of(times, settings.skip_initial, settings.skip_final)

    def _encode(
        self,
        pixels: Float[Tensor, "1 3 F _ _"],
        size: VideoShape | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "1 c f h w"]:
        """Normalised latents in float32 of pixels, stretched to a size before: the mean, or a generator's sample."""
        weight = next(self.model.vae.parameters())
        pixels = pixels if size is None else resize(pixels, size.height, size.width)
        return self.model.vae.encode(pixels.to(self.device, weight.dtype), generator).float()


def _takes_fields_of(
    make_request: Callable[P, GenerationRequest],
) -> Callable[[Callable[[LTXModel, GenerationRequest], Video]], Callable[Concatenate[LTXModel, P], Video]]:
    """Let a function of (model, request) be called with the request's fields, so that they are listed only once."""

    def decorate(call: Callable[[LTXModel, GenerationRequest], Video]) -> Callable[Concatenate[LTXModel, P], Video]:
        @functools.wraps(call)
        def with_fields(model: LTXModel, /, *args: P.args, **kwargs: P.kwargs) -> Video:
            return call(model, make_request(*args, **kwargs))

        own, *_ = inspect.signature(call).parameters.values()
        fields = inspect.signature(make_request).parameters.values()
        with_fields.__signature__ = inspect.Signature([own, *fields], return_annotation=Video)  # pyright: ignore[reportAttributeAccessIssue]
        return with_fields

    return decorate


@_takes_fields_of(GenerationRequest)
def generate(model: LTXModel, request: GenerationRequest) -> Video:
    """Make one video. The arguments behind the model are the fields of ``GenerationRequest``.

    Example: ``generate(model, "a red ball bounces on a checkered floor", seed=7).save("ball.mp4")``.
    """
    return Generator(model)(request)


def embedded(
    request: GenerationRequest,
    model: str,
    fingerprint: str,
    seconds_taken: float,
    loras: Sequence[UsedLoRA] = (),
    details: Mapping[str, str] | None = None,
) -> Mapping[str, str]:
    """What a file says of itself: ``request`` is the resolved one."""
    return {
        "request": request.to_json(),
        "model": model,
        "fingerprint": fingerprint,
        "openltx": openltx.__version__,
        "seconds_taken": f"{seconds_taken:.2f}",
        **(details or {}),
        **({"loras": json.dumps([asdict(lora) for lora in loras])} if loras else {}),
    }


def curve_of(settings: Sampling) -> GuidanceCurve:
    """The guidance of each step; ``RequestError`` if lists of values do not match the guidance times."""
    return guidance_curve(
        cfg=settings.cfg,
        cfg_star=settings.cfg_star,
        stg=settings.stg,
        rescale=settings.rescale,
        skip_blocks=settings.skip_blocks,
        times=settings.guidance_times,
    )


def _fitting(latents: Float[Tensor, "1 c f h w"], grid: LatentShape) -> Float[Tensor, "1 c f h w"]:
    """The latents; ``RequestError`` unless they are those of a video on ``grid``."""
    if latents.shape[2:] != (grid.frames, grid.height, grid.width):
        raise RequestError(
            f"The latents to start from are {' x '.join(map(str, latents.shape[2:]))}, but the video that is asked for "
            f"has {grid.frames} x {grid.height} x {grid.width} (frames, height, width). Ask for their size."
        )
    return latents


def _raise_to_level(state: TokenState, t: float, noise: torch.Generator) -> Float[Tensor, "b n c"]:
    """The video's tokens, all at noise level ``t``: those that were held cleaner get their missing noise.

    The decoder is told one t for the whole video, so a first frame that was held at t = 0 must come to it as z_t too.
    """
    fresh = randn(state.tokens.shape, noise, device=state.tokens.device, dtype=state.tokens.dtype)
    noised = interpolate(state.clean, fresh, state.tokens.new_full((len(state.tokens),), t))
    tokens = torch.where((1 - state.strength < t)[..., None], noised, state.tokens)
    return replace(state, tokens=tokens).targets
