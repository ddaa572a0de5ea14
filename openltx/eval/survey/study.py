"""A study: one folder that holds all a survey needs.

    study.json       models, prompts, raters' codes, and which clip is which: what raters must not see
    clips/           every video under a name that says nothing, with nothing embedded, and broken ones for the checks
    answers.sqlite   what was answered

Who is asked what follows from the study and the rater's place in the list alone, so nothing is lost by a restart. A
rater meets all pairs of models equally often, in random order and on random sides, with random prompts. About every
tenth question is an attention check: a clip beside a broken version of itself.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from uuid import uuid4

import numpy as np
from jaxtyping import UInt8

from openltx.errors import DataError, RequestError
from openltx.eval.report import write_json
from openltx.eval.videos import Entry, Progress, in_common
from openltx.media.io import open_stream, read_video, write_video

STUDY, CLIPS, ANSWERS = "study.json", "clips", "answers.sqlite"
VERSION = 1
CHECK_EVERY = 10
_PLAYS_IN_BROWSERS = ("h264", "vp9", "av1")
_CODE_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike


@dataclass(frozen=True, kw_only=True)
class Question:
    """Two clips (by id) of one prompt. In a check, ``broken`` is the id of the clip that must lose; else None."""

    number: int
    prompt: str
    left: str
    right: str
    broken: str | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """What ``study.json`` says.

    clips    id -> (model, name)
    checks   id of a broken clip -> id of the whole one
    """

    version: int
    seed: int
    models: tuple[str, ...]
    prompts: dict[str, str]
    clips: dict[str, tuple[str, str]]
    checks: dict[str, str]
    raters: tuple[str, ...]
    comparisons: int

    @property
    def total(self) -> int:
        """Questions for each rater, checks included."""
        return self.comparisons + self.comparisons // (CHECK_EVERY - 1)

    def questions(self, rater: str) -> list[Question]:
        """All that a rater is asked, in order; DataError for an unknown code."""
        if rater not in self.raters:
            raise DataError(f"There is no rater {rater!r} in this study.")
        rng = np.random.default_rng([self.seed, self.raters.index(rater)])
        pairs = _shuffled_rounds(rng, list(combinations(self.models, 2)), self.comparisons)
        names = _shuffled_rounds(rng, list(self.prompts), self.comparisons)
        ids = {key: clip for clip, key in self.clips.items()}
        asked = []
        for pair, name in zip(pairs, names, strict=True):
            left, right = (ids[model, name] for model in _in_random_order(rng, pair))
            asked.append((self.prompts[name], left, right, None))
        for place in self._places_of_checks(rng):
            broken = list(self.checks)[rng.integers(len(self.checks))]
            left, right = _in_random_order(rng, (broken, self.checks[broken]))
            asked.insert(place, (self.prompts[self.clips[self.checks[broken]][1]], left, right, broken))
        return [
            Question(number=number, prompt=prompt, left=left, right=right, broken=broken)
            for number, (prompt, left, right, broken) in enumerate(asked)
        ]

    def _places_of_checks(self, rng: np.random.Generator) -> list[int]:
        """One place in every ten questions, where it cannot be foreseen."""
        return [CHECK_EVERY * i + int(rng.integers(CHECK_EVERY)) for i in range(self.total - self.comparisons)]


def create_study(
    folder: Path,
    sets: Mapping[str, Sequence[Entry]],
    *,
    raters: int,
    comparisons: int,
    seed: int,
    progress: Progress,
) -> Study:
    """Blind the videos of two models or more into a folder. Raises ``OpenLTXError`` for what cannot be compared."""
    if len(sets) < 2:
        raise RequestError("A survey compares models: name two of them at least.")
    if min(raters, comparisons) < 1:
        raise RequestError(f"raters={raters} and comparisons={comparisons} must be at least 1.")
    if (folder / STUDY).exists():
        raise DataError(
            f"{folder} holds a study already. Leave the models out to go on with it, or name another folder."
        )
    names = in_common(sets)
    prompts = _prompts_of(sets, names)
    (folder / CLIPS).mkdir(parents=True, exist_ok=True)
    entries = {(model, entry.name): entry for model, found in sets.items() for entry in found if entry.name in names}
    salt = secrets.token_hex(8)
    clips = {_clip_id(salt, *key): key for key in entries}
    broken = {_clip_id(salt, "broken", *key): clip for clip, key in clips.items()}
    chosen = np.random.default_rng(seed).permutation(sorted(broken))[: max(4, len(names) // 4)]
    checks = {clip: broken[clip] for clip in chosen.tolist()}
    work = [(clip, entries[key], False) for clip, key in clips.items()]
    work += [(clip, entries[clips[source]], True) for clip, source in checks.items()]
    for done, (clip, entry, is_broken) in enumerate(work, start=1):
        target = clip_path(folder, clip)
        if is_broken:
            frames, fps = read_video(entry.path)
            write_video(target, break_video(frames, seed), fps)
        else:
            copy_without_metadata(entry.path, target)
        progress(done, len(work))
    study = Study(
        version=VERSION,
        seed=seed,
        models=tuple(sets),
        prompts=prompts,
        clips=clips,
        checks=checks,
        raters=new_codes(raters),
        comparisons=comparisons,
    )
    write_json(folder / STUDY, asdict(study))
    return study


def open_study(folder: Path) -> Study:
    """The study in a folder; DataError if there is none that this version can read."""
    path = folder / STUDY
    try:
        values = json.loads(path.read_text())
        if values["version"] != VERSION:
            raise DataError(f"{path} is of version {values['version']}; this openltx reads version {VERSION}.")
        clips = {clip: (model, name) for clip, (model, name) in values.pop("clips").items()}
        models, raters = tuple(values.pop("models")), tuple(values.pop("raters"))
        return Study(**values, clips=clips, models=models, raters=raters)
    except FileNotFoundError as error:
        raise DataError(
            f"There is no study in {folder}. Make one: openltx eval survey --models A B --prompts FILE --out {folder}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no study ({error}).") from error


def clip_path(folder: Path, clip: str) -> Path:
    """The file of a clip."""
    return folder / CLIPS / f"{clip}.mp4"


def new_codes(count: int) -> tuple[str, ...]:
    """Codes for raters, which cannot be guessed."""
    return tuple("".join(secrets.choice(_CODE_LETTERS) for _ in range(8)) for _ in range(count))


def break_video(frames: UInt8[np.ndarray, "F H W 3"], seed: int = 0) -> UInt8[np.ndarray, "F H W 3"]:
    """A version that nobody prefers: coarse blocks, and the frames in random order."""
    height, width = frames.shape[1:3]
    block = max(2, min(height, width) // 12)
    rows, columns = (np.arange(side) // block * block for side in (height, width))
    return frames[np.random.default_rng(seed).permutation(len(frames))][:, rows][:, :, columns]


def copy_without_metadata(source: Path, target: Path) -> None:
    """A video as a browser plays it, without what its file says of itself; recoded only if browsers cannot play it."""
    import av

    if source.suffix.lower() == ".mp4":
        with open_stream(source) as (container, stream):
            if stream.codec_context.name in _PLAYS_IN_BROWSERS:
                partial = target.with_name(f".{uuid4().hex}.tmp")
                with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as copy:
                    track = copy.add_stream_from_template(stream)
                    for packet in container.demux(stream):
                        if packet.dts is not None:
                            packet.stream = track
                            copy.mux(packet)
                partial.replace(target)
                return
    frames, fps = read_video(source)
    write_video(target, frames, fps)


def _prompts_of(sets: Mapping[str, Sequence[Entry]], names: Sequence[str]) -> dict[str, str]:
    """The prompt behind each name, as any of the models' videos tell it; DataError if none does."""
    told = {entry.name: entry.prompt for entries in sets.values() for entry in entries if entry.prompt is not None}
    unknown = [name for name in names if name not in told]
    if unknown:
        raise DataError(
            f"Nobody knows the prompt of {unknown[0]}: raters must see it. Give all of them with --prompts."
        )
    return {name: told[name] for name in names}


def _clip_id(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def _shuffled_rounds(rng: np.random.Generator, items: list, count: int) -> list:
    """``count`` of the items: all of them in random order, again and again."""
    rounds = [rng.permutation(len(items)) for _ in range(-(-count // len(items)))]
    return [items[i] for i in np.concatenate(rounds)[:count]]


def _in_random_order(rng: np.random.Generator, pair: tuple[str, str]) -> tuple[str, str]:
    a, b = pair
    return (a, b) if rng.integers(2) else (b, a)
