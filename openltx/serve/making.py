"""One job made: prepare, sample, decode, write, with a word to the store after every step.

The word is also the question whether the job is still wanted. If it has been cancelled, deleted or given to another
worker, ``DroppedError`` is raised and nothing is left of the work; so is ``StoppingError`` when the server shuts down.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openltx.errors import OpenLTXError
from openltx.flow.path import TokenState
from openltx.flow.solvers import Step
from openltx.geometry import LatentShape
from openltx.media.contact_sheet import ChosenFrames, evenly_spaced
from openltx.media.gradual import write_gradually
from openltx.media.stream import stream_video
from openltx.media.transforms import resize_cover
from openltx.pipelines.generate import Generator, embedded
from openltx.pipelines.plan import ONE_BATCH_TOKENS
from openltx.pipelines.prepared import Prepared, sample_together
from openltx.pipelines.request import GenerationRequest, Sampling
from openltx.pipelines.two_pass import TwoPassGenerator
from openltx.serve.files import PREVIEW, VARIANTS, Files
from openltx.serve.log import happened
from openltx.serve.pictures import SPRITES, preview, spritesheet, thumbnail
from openltx.serve.schema import UPLOAD_FIELDS, split_keyframe
from openltx.serve.store.jobs import Job, Jobs, Stage

PREVIEW_SHARE = 0.1
"""How much of the sampling time previews may take."""
PREVIEW_PAUSE = 0.4
"""Seconds between two previews, at least."""


class DroppedError(Exception):
    """The job is not this worker's any more."""


class StoppingError(Exception):
    """The server shuts down."""


@dataclass
class Clock:
    """How long each stage took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)

    def start(self) -> None:
        """A stage begins now; what was done since the last one is not this job's."""
        self.since = time.perf_counter()

    def end(self, stage: Stage, count: int = 1) -> None:
        """What ran until now was ``stage``, of ``count`` jobs at the same time; each has its share."""
        now = time.perf_counter()
        self.seconds[stage] = round((now - self.since) / count, 4)
        self.since = now


@dataclass(frozen=True, kw_only=True)
class _Sampled:
    """A video that is sampled; its frames are decoded as they are asked for."""

    request: GenerationRequest
    frames: Iterator[UInt8[np.ndarray, "F H W 3"]]
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Begun:
    """A job on its way through the steps."""

    job: Job
    clock: Clock
    prepared: Prepared
    tell: Callable[[Step, LatentShape], None]
    state: TokenState
    is_wanted: bool = True


class Maker:
    """Makes the videos of jobs with one loaded model.

    Its methods raise ``DroppedError``, ``StoppingError``, ``OpenLTXError`` for what the client can mend, or anything
    else.
    """

    def __init__(
        self,
        generator: Generator | TwoPassGenerator,
        jobs: Jobs,
        files: Files,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._generator = generator
        self._jobs = jobs
        self._files = files
        self._is_stopping = is_stopping

    def __call__(self, job: Job) -> Mapping[str, float]:
        """Make one video and end the job; gives the seconds by stage."""
        generator = self._generator
        if isinstance(generator, TwoPassGenerator):
            clock = self._clock(job)
            sampled = self._in_two_passes(job, generator, clock)
            clock.end("sample")
            return self._finished(job, sampled, clock)
        begun = self._begun(job, generator)
        for step in generator.sample(begun.prepared):
            self._stepped(begun, step)
        begun.clock.end("sample")
        return self._finished(job, self._sampled(begun, generator), begun.clock)

    def together(self, jobs: Sequence[Job], ending: Callable[[Job], AbstractContextManager[None]]) -> list[Job]:
        """Make several videos in one batch; gives the jobs that do not go with the first, untouched but for preparing.

        Whatever is raised for one of them is raised within its ``ending``, which is to deal with it.
        """
        generator, batch, others = self._generator, list[_Begun](), list[Job]()
        assert isinstance(generator, Generator)
        for job in jobs:
            with ending(job):
                begun = self._begun(job, generator, len(jobs))
                if not batch or begun.prepared.goes_with(batch[0].prepared):
                    batch.append(begun)
                else:
                    others.append(job)
        if batch:
            self._sample_together(generator, batch, ending)
        for begun in batch:
            if begun.is_wanted:
                with ending(begun.job):
                    begun.clock.start()
                    self._finished(begun.job, self._sampled(begun, generator), begun.clock)
        return others

    def most_together(self, job: Job) -> int:
        """How many jobs like this one are sooner done in one batch than one by one."""
        if isinstance(self._generator, TwoPassGenerator) or not is_plain(job):
            return 1
        with suppress(OpenLTXError):  # said when it is its turn
            settings = self._generator.resolve(self._request(job)).settings(Sampling())
            if not settings.cache_threshold:
                return max(ONE_BATCH_TOKENS // settings.shape.padded().latent().num_tokens, 1)
        return 1

    def shown(self, job: Job, error: OpenLTXError) -> str:
        """What is wrong, without places on the disk."""
        return str(error).replace(f"{self._files.job(job.id) / 'inputs'}{os.sep}", "")

    def _clock(self, job: Job) -> Clock:
        clock = Clock({"queued": round((job.started_at or job.created_at) - job.created_at, 4)})
        self._report(job, "prepare")
        return clock

    def _begun(self, job: Job, generator: Generator, count: int = 1) -> _Begun:
        clock = self._clock(job)
        prepared = generator.prepare(self._request(job))
        self._prepared(job, prepared.request, clock)
        return _Begun(job, clock, prepared, self._teller(job, count), prepared.state)

    def _stepped(self, begun: _Begun, step: Step) -> None:
        begun.state = step.state
        begun.tell(step, begun.prepared.grid)

    def _sample_together(
        self, generator: Generator, batch: Sequence[_Begun], ending: Callable[[Job], AbstractContextManager[None]]
    ) -> None:
        """All steps, or as long as anybody wants them; what fails for all is raised within the ending of each."""
        for begun in batch:
            begun.clock.start()
        try:
            for steps in sample_together(generator.model.transformer, [begun.prepared for begun in batch]):
                for begun, step in zip(batch, steps, strict=True):
                    if begun.is_wanted:
                        begun.is_wanted = False
                        with ending(begun.job):
                            self._stepped(begun, step)
                            begun.is_wanted = True
                if not any(begun.is_wanted for begun in batch):
                    return
            for begun in batch:
                begun.clock.end("sample", len(batch))
        except Exception as error:
            for begun in batch:
                if begun.is_wanted:
                    begun.is_wanted = False
                    with ending(begun.job):
                        raise error

    def _sampled(self, begun: _Begun, generator: Generator) -> _Sampled:
        frames = generator.decode_stream(begun.prepared, begun.state)
        return _Sampled(request=begun.prepared.request, frames=frames)

    def _in_two_passes(self, job: Job, generator: TwoPassGenerator, clock: Clock) -> _Sampled:
        plan = generator.plan(self._request(job))
        self._prepared(job, plan.request, clock)
        tell, first = self._teller(job), plan.first
        steps_of_first = 0 if first is None else generator.first.num_steps(first)

        def told(step: Step) -> None:
            now = plan.second if first is None or step.index >= steps_of_first else first
            tell(step, now.settings(Sampling()).shape.padded().latent())

        plan, prepared, state = generator.sampled(plan.request, told)
        return _Sampled(
            request=plan.request,
            frames=generator.decode_stream(plan, prepared, state),
            details=generator.details(plan),
        )

    def _finished(self, job: Job, sampled: _Sampled, clock: Clock) -> Mapping[str, float]:
        """Decode and write."""
        self._log(job, f"sampled in {clock.seconds['sample']:.2f} s")
        self._report(job, "decode", progress=90)
        frames = self._decoded(job, sampled)
        clock.end("decode")
        self._log(job, f"decoded in {clock.seconds['decode']:.2f} s")
        self._report(job, "write", progress=98)
        self._write(job, sampled, frames, clock)
        happened("job.completed", job=job.id, stages=dict(clock.seconds))
        return clock.seconds

    def _prepared(self, job: Job, request: GenerationRequest, clock: Clock) -> None:
        clock.end("prepare")
        size = f"{request.frames} frames of {request.size}"
        self._log(job, f"{size}, seed {request.seed}; prepared in {clock.seconds['prepare']:.2f} s")

    def _request(self, job: Job) -> GenerationRequest:
        """What the client asked for, with the places of files in place of their identifiers."""
        asked = json.dumps(job.request)
        request = GenerationRequest.from_json(asked)
        places = {name: self._place(job, getattr(request, name)) for name in UPLOAD_FIELDS if getattr(request, name)}
        keyframes = tuple(_moved(keyframe, lambda name: self._place(job, name)) for keyframe in request.keyframes)
        return replace(request, **places, keyframes=keyframes)

    def _place(self, job: Job, name: str) -> Path:
        return self._files.input(job.id, str(name))

    def _teller(self, job: Job, count: int = 1) -> Callable[[Step, LatentShape], None]:
        """What is called after each step of one of ``count``: a word to the store, and now and then a picture."""
        started, previewing, last = time.perf_counter(), 0.0, float("-inf")

        def tell(step: Step, grid: LatentShape) -> None:
            nonlocal previewing, last
            done = step.index + 1
            self._report(job, "sample", step=done, steps=step.total, progress=2 + 86 * done // step.total)
            now = time.perf_counter()
            is_cheap = previewing <= PREVIEW_SHARE / count * (now - started)
            if done < step.total and is_cheap and now - last >= PREVIEW_PAUSE:
                self._show(job, step, grid)
                last = time.perf_counter()
                previewing += last - now

        return tell

    def _decoded(self, job: Job, sampled: _Sampled) -> UInt8[np.ndarray, "F H W 3"]:
        """All frames; a long video comes in pieces, with a word to the store after each."""
        pieces = []
        for piece in sampled.frames:
            pieces.append(piece)
            self._report(job, "decode", progress=90)
        return np.concatenate(pieces)

    def _show(self, job: Job, step: Step, grid: LatentShape) -> None:
        image = preview(self._generator.model.vae, step, grid)
        with self._files.scratch() as folder:
            image.save(folder / PREVIEW, quality=80)
            self._hand_over(folder, job)
        if not self._jobs.note(job, "preview", {"step": step.index + 1, "steps": step.total}):
            raise DroppedError

    def _write(self, job: Job, sampled: _Sampled, frames: UInt8[np.ndarray, "F H W 3"], clock: Clock) -> None:
        request, model, continued = _without_places(sampled.request, job), self._generator.model, job.continues
        before = 0 if continued is None else continued.frames
        fresh = frames if continued is None else frames[continued.overlap :]
        sprites = ChosenFrames(evenly_spaced(before + len(fresh), SPRITES))
        _, height, width, _ = frames.shape

        def pieces() -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
            if continued is not None:
                for _, frame in stream_video(self._place(job, continued.file)):
                    assert frame is not None
                    yield sprites.see(resize_cover(frame, height, width)[None])
            yield sprites.see(fresh)

        def metadata() -> Mapping[str, str]:
            seconds = sum(clock.seconds.values()) - clock.seconds["queued"]
            extends = {} if continued is None else {"extends": json.dumps(job.extends)}
            details = {**sampled.details, **extends}
            return embedded(request, model.name, model.fingerprint, seconds, model.loras, details)

        with self._files.scratch() as folder:
            names = {variant: folder / name for variant, (name, _) in VARIANTS.items()}
            write_gradually(names["video"], pieces(), request.settings(Sampling()).fps, metadata)
            thumbnail(fresh).save(names["thumbnail"], quality=85)
            spritesheet(np.stack(sprites.frames)).save(names["spritesheet"], quality=85)
            size = self._hand_over(folder, job)
        clock.end("write")
        resolved = json.loads(request.to_json())
        if not self._jobs.finish(
            job, resolved=resolved, stages=clock.seconds, size=f"{width}x{height}", bytes=job.bytes + size
        ):
            raise DroppedError

    def _log(self, job: Job, message: str) -> None:
        if not self._jobs.note(job, "log", {"message": message}):
            raise DroppedError

    def _hand_over(self, folder: Path, job: Job) -> int:
        try:
            return self._files.hand_over(folder, job.id)
        except FileNotFoundError:
            raise DroppedError from None

    def _report(self, job: Job, stage: Stage, step: int = 0, steps: int = 0, progress: int = 0) -> None:
        if self._is_stopping():
            raise StoppingError
        if not self._jobs.report(job, stage=stage, step=step, steps=steps, progress=progress):
            raise DroppedError


def is_plain(job: Job) -> bool:
    """Whether a job is made of its words and at most a first picture, and no worker has died of it.

    One that crashed the worker takes no others with it the next time.
    """
    given = {name for name in (*UPLOAD_FIELDS, "keyframes", "window") if job.request.get(name)}
    return not job.crashes and not job.extends and given <= {"image"}


def is_like(job: Job, other: Job) -> bool:
    """Whether two plain jobs ask for the same but for words, seed and first picture."""
    own = ("prompt", "negative", "seed")
    one, two = (
        {**asked.request, **dict.fromkeys(own), "image": bool(asked.request.get("image"))} for asked in (job, other)
    )
    return one == two and is_plain(other)


def _moved(keyframe: str, place: Callable[[str], Path]) -> str:
    """A keyframe with the place of the file instead of its identifier."""
    name, rest = split_keyframe(keyframe)
    return f"{place(name)}{rest}"


def _without_places(request: GenerationRequest, job: Job) -> GenerationRequest:
    """The resolved request as it leaves the server: identifiers again, no place on its disk."""
    names = {name: job.request.get(name) for name in UPLOAD_FIELDS}
    return replace(request, **names, keyframes=tuple(job.request.get("keyframes", ())))
