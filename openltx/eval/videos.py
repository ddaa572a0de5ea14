"""The videos that are judged: prompts from a file, videos made of them with fixed seeds, or videos from a folder.

A folder of videos has one file for each prompt. Files of the same name in two folders are the same prompt, and with
``make_videos`` the same seed: that is how models are compared.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openltx.data.manifest import MANIFEST, Clip, read_manifest
from openltx.errors import DataError, OpenLTXError, RequestError
from openltx.media.io import read_metadata
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".gif", ".webp")
SEED_STRIDE = 1_000_003  # between the seeds of two runs

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a video is to show: words, perhaps a picture to start from, perhaps the scene that they describe."""

    text: str
    image: Path | None = None
    clip: Clip | None = None


@dataclass(frozen=True, kw_only=True)
class Making:
    """How videos are made for an evaluation; None leaves a choice to the model."""

    seed: int = 0
    """Of the videos: every prompt has one of its own, the same for all models."""
    size: str | None = None
    """WIDTHxHEIGHT, if other than the model's own."""
    frames: int | None = None
    """How many frames, if other than the model's own."""
    steps: int | None = None
    """Denoising steps, if other than the model's own."""
    cfg: float | None = None
    """Guidance, if other than the model's own."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A video to judge. ``name`` is that of the same prompt of other models; ``seconds`` is what making it took."""

    name: str
    path: Path
    prompt: str | None
    clip: Clip | None = None
    seconds: float | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from a text file (one a line), JSON lines with ``prompt`` and perhaps ``image``, or a data set's folder.

    Of a data set they are the captions of the held-out clips. Raises DataError if there are none, or a line
    cannot be understood.
    """
    if path.is_dir():
        prompts = [prompt_of(clip) for clip in read_manifest(path, "heldout")]
    elif not path.is_file():
        raise DataError(f"There is no file {path} to read prompts from.")
    elif path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        prompts = [_from_json(line, f"{path}:{n}", path.parent) for n, line in enumerate(lines, 1) if line.strip()]
    else:
        prompts = [Prompt(text=line.strip()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        what = f"its {MANIFEST} has no held-out clips" if path.is_dir() else "write one prompt a line"
        raise DataError(f"{path} has no prompts: {what}.")
    return prompts


def make_videos(
    generator: Generator, prompts: Sequence[Prompt], folder: Path, making: Making, progress: Progress
) -> tuple[list[Entry], int]:
    """A video for each prompt, ``0000.mp4`` and so on, and how many of them were made now.

    Those that are there already, from the same request to the same model, are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries, made = [], 0
    for index, prompt in enumerate(prompts):
        request = generator.resolve(
            GenerationRequest(
                prompt.text,
                image=prompt.image,
                size=making.size,
                frames=making.frames,
                steps=making.steps,
                cfg=making.cfg,
                seed=making.seed * SEED_STRIDE + index,
            )
        )
        path = folder / f"{index:04d}.mp4"
        if not _is_made(path, request, generator.model.fingerprint):
            generator(request).save(path)
            made += 1
        entries.append(_entry(path, prompt))
        progress(index + 1, len(prompts))
    return entries, made


def read_videos(folder: Path, prompts: Sequence[Prompt] | None = None) -> list[Entry]:
    """The videos of a folder by name; their prompts are given in that order, or embedded in the files, or unknown.

    Of a data set's folder the held-out clips, with their captions (all clips if none is held out).

    Raises DataError for a folder without videos, or with another number of them than prompts.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} with videos.")
    if prompts is None and (folder / MANIFEST).is_file():
        clips = read_manifest(folder, "heldout") or read_manifest(folder)
        return [_entry(folder / clip.path, prompt_of(clip)) for clip in clips]
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} has no videos in it ({', '.join(SUFFIXES)}).")
    if prompts is not None and len(prompts) != len(paths):
        raise DataError(
            f"{folder} has {len(paths)} videos, and there are {len(prompts)} prompts: give a prompt for each, in the "
            "order of the files' names."
        )
    given = prompts or [None] * len(paths)
    return [_entry(path, prompt) for path, prompt in zip(paths, given, strict=True)]


def in_common(folders: Mapping[str, Sequence[Entry]]) -> list[str]:
    """The names that every model has a video of; raises DataError if there are none."""
    names = [{entry.name for entry in entries} for entries in folders.values()]
    common = sorted(set.intersection(*names))
    if not common:
        raise DataError(
            f"{' and '.join(folders)} have no video of the same name: those of one prompt must be called the same."
        )
    return common


def short_names(sources: Sequence[Path]) -> list[str]:
    """A name for each model or folder: its own, with its folder's before it if that is not enough to tell them apart.

    Raises DataError if two are the same.
    """
    names = [source.stem for source in sources]
    if len(set(names)) < len(names):
        names = [f"{source.absolute().parent.name}-{source.stem}" for source in sources]
    if len(set(names)) < len(names):
        raise DataError(f"{', '.join(map(str, sources))} cannot be told apart by their names. Rename one.")
    return names


def peak_memory() -> int | None:
    """The most memory in bytes that this process has had (on CUDA: of the device); None where that is not known."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def prompt_of(clip: Clip) -> Prompt:
    """A clip's caption, and its scene if that is known."""
    return Prompt(text=clip.caption, clip=clip if "objects" in clip.truth else None)


def _entry(path: Path, prompt: Prompt | None) -> Entry:
    embedded = read_metadata(path)
    text = None if prompt is None else prompt.text
    if text is None and (request := _request_of(embedded)) is not None:
        text = request.prompt
    seconds = embedded.get("seconds_taken")
    return Entry(
        name=path.stem,
        path=path,
        prompt=text,
        clip=None if prompt is None else prompt.clip,
        seconds=None if seconds is None else float(seconds),
    )


def _is_made(path: Path, request: GenerationRequest, fingerprint: str) -> bool:
    """Whether a file is the video of this request by this model; in how many tiles it was decoded does not matter."""
    if not path.is_file():
        return False
    try:
        embedded = read_metadata(path)
        made = _request_of(embedded)
    except OpenLTXError:
        return False
    same = made is not None and replace(made, tile=None).to_json() == replace(request, tile=None).to_json()
    return same and embedded.get("fingerprint") == fingerprint


def _request_of(embedded: Mapping[str, str]) -> GenerationRequest | None:
    try:
        return GenerationRequest.from_json(embedded["request"]) if "request" in embedded else None
    except RequestError:
        return None


def _from_json(line: str, place: str, folder: Path) -> Prompt:
    try:
        values: dict[str, Any] = json.loads(line)
        image = values.get("image")
        return Prompt(text=str(values["prompt"]), image=None if image is None else folder / image)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{place} is no prompt: write {{"prompt": "...", "image": "file.png"}}, image if any.'
        ) from error
