"""One job made: prepare, sample, decode, write, with a word to the store after every step.

The word is also the question whether the job is still wanted. If it has been cancelled, deleted or given to another
worker, ``DroppedError`` is raised and nothing is left of the work; so is ``StoppingError`` when the server shuts down.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openltx.flow.path import TokenState
from openltx.flow.solvers import Step
from openltx.pipelines.generate import Generator, Prepared, Video
from openltx.pipelines.request import GenerationRequest
from openltx.serve.files import PREVIEW, VARIANTS, Files
from openltx.serve.pictures import preview, spritesheet, thumbnail
from openltx.serve.schema import UPLOAD_FIELDS
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

    def end(self, stage: Stage) -> None:
        """What ran until now was ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self.since, 4)
        self.since = now


class Maker:
    """Makes the videos of jobs with one loaded model."""

    def __init__(self, generator: Generator, jobs: Jobs, files: Files, is_stopping: Callable[[], bool]) -> None:
        self._generator = generator
        self._jobs = jobs
        self._files = files
        self._is_stopping = is_stopping

    def __call__(self, job: Job) -> Mapping[str, float]:
        """Make one video and end the job; gives the seconds by stage.

        Raises ``DroppedError``, ``StoppingError``, ``OpenLTXError`` for what the client can mend, or anything else.
        """
        clock = Clock({"queued": round((job.started_at or job.created_at) - job.created_at, 4)})
        self._report(job, "prepare")
        prepared = self._generator.prepare(self._request(job))
        clock.end("prepare")
        settings = prepared.settings
        size = f"{settings.frames} frames of {settings.width}x{settings.height}"
        self._log(job, f"{size}, seed {prepared.request.seed}; prepared in {clock.seconds['prepare']:.2f} s")
        state = self._sample(job, prepared)
        clock.end("sample")
        self._log(job, f"sampled in {clock.seconds['sample']:.2f} s")
        self._report(job, "decode", progress=90)
        frames = self._decode(job, prepared, state)
        clock.end("decode")
        self._log(job, f"decoded in {clock.seconds['decode']:.2f} s")
        self._report(job, "write", progress=98)
        video = Video(
            frames=frames,
            fps=prepared.settings.fps,
            request=_without_places(prepared.request, job),
            model=self._generator.model.name,
            fingerprint=self._generator.model.fingerprint,
            seconds_taken=sum(clock.seconds.values()) - clock.seconds["queued"],
        )
        self._write(job, video, clock)
        return clock.seconds

    def _request(self, job: Job) -> GenerationRequest:
        """What the client asked for, with the places of files in place of their identifiers."""
        asked = json.dumps(job.request)
        request = GenerationRequest.from_json(asked)
        places = {name: self._place(job, getattr(request, name)) for name in UPLOAD_FIELDS if getattr(request, name)}
        keyframes = tuple(_moved(keyframe, lambda name: self._place(job, name)) for keyframe in request.keyframes)
        return replace(request, **places, keyframes=keyframes)

    def _place(self, job: Job, name: str) -> Path:
        return self._files.input(job.id, str(name))

    def _sample(self, job: Job, prepared: Prepared) -> TokenState:
        """The solver's steps, each with its word to the store; gives the last state."""
        state, started, previewing, last = prepared.state, time.perf_counter(), 0.0, float("-inf")
        for step in self._generator.sample(prepared):
            state, done = step.state, step.index + 1
            self._report(job, "sample", step=done, steps=step.total, progress=2 + 86 * done // step.total)
            now = time.perf_counter()
            is_cheap = previewing <= PREVIEW_SHARE * (now - started)
            if done < step.total and is_cheap and now - last >= PREVIEW_PAUSE:
                self._show(job, prepared, step)
                last = time.perf_counter()
                previewing += last - now
        return state

    def _decode(self, job: Job, prepared: Prepared, state: TokenState) -> UInt8[np.ndarray, "F H W 3"]:
        """All frames; a long video comes in pieces, with a word to the store after each."""
        pieces = []
        for piece in self._generator.decode_stream(prepared, state):
            pieces.append(piece)
            self._report(job, "decode", progress=90)
        return np.concatenate(pieces)

    def _show(self, job: Job, prepared: Prepared, step: Step) -> None:
        image = preview(self._generator.model.vae, prepared, step)
        with self._files.scratch() as folder:
            image.save(folder / PREVIEW, quality=80)
            self._hand_over(folder, job)
        if not self._jobs.note(job, "preview", {"step": step.index + 1, "steps": step.total}):
            raise DroppedError

    def _write(self, job: Job, video: Video, clock: Clock) -> None:
        with self._files.scratch() as folder:
            names = {variant: folder / name for variant, (name, _) in VARIANTS.items()}
            video.save(names["video"])
            thumbnail(video.frames).save(names["thumbnail"], quality=85)
            spritesheet(video.frames).save(names["spritesheet"], quality=85)
            size = self._hand_over(folder, job)
        clock.end("write")
        _, height, width, _ = video.frames.shape
        resolved = json.loads(video.request.to_json())
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


def _moved(keyframe: str, place: Callable[[str], Path]) -> str:
    """ID@FRAME:STRENGTH with the place of the file instead of its identifier."""
    name, separator, rest = keyframe.partition("@")
    return f"{place(name)}{separator}{rest}"


def _without_places(request: GenerationRequest, job: Job) -> GenerationRequest:
    """The resolved request as it leaves the server: identifiers again, no place on its disk."""
    names = {name: job.request.get(name) for name in UPLOAD_FIELDS}
    return replace(request, **names, keyframes=tuple(job.request.get("keyframes", ())))
