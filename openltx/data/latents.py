"""Precomputed latents as training reads them: shards of safetensors, looked up by number, never all in memory.

A folder holds ``index.json``, which says who encoded and how, and shards of some clips each:

    <clip>/latents        c f h w, normalised, bf16
    <clip>/fps            frames a second
    <clip>/caption<k>     l e, token states of a caption, bf16
    <clip>/stills         k c 1 h w, single frames of the clip, each encoded by itself; <clip>/still_frames says which
    <clip>/still_caption<k>
    <clip>/ending         c e h w, the last 8e - 7 frames, encoded as a clip of their own

The last four are there if they were asked for (``data.precompute``). Only headers are read when a folder is opened; an
example's tensors are read from the mapped file when it is asked for.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from openltx.errors import DataError

INDEX = "index.json"
OPEN_SHARDS = 32


@dataclass(frozen=True, kw_only=True)
class Example:
    """One clip for the transformer.

    latents       normalised
    captions      the token states (l e) of each phrasing of its caption
    stills        single frames, encoded by themselves; ``still_frames`` are their numbers
    ending        the last frames, encoded as a clip of their own
    """

    latents: Float[Tensor, "c f h w"]
    captions: tuple[Tensor, ...]
    fps: float
    stills: Float[Tensor, "k c 1 h w"] | None = None
    still_frames: tuple[int, ...] = ()
    still_captions: tuple[Tensor, ...] = ()
    ending: Float[Tensor, "c e h w"] | None = None


class Entry(NamedTuple):
    """What is known of an example without reading it."""

    shard: int
    shape: tuple[int, int, int]
    """f, h, w"""
    fps: float
    stills: int
    has_ending: bool


class LatentFolder(Sequence[Example]):
    """The examples of a folder, in the order of its shards. Raises ``DataError`` if it holds none, or damaged ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = sorted(folder.glob("shard-*.safetensors"))
        if not self.shards:
            raise DataError(f"{folder} holds no precomputed latents. Make them: openltx data precompute --help")
        self._opened: dict[int, Any] = {}
        self._keys: dict[int, frozenset[str]] = {}
        self._names: list[tuple[int, str]] = []
        self.entries: list[Entry] = []
        for number in range(len(self.shards)):
            self._read_header(number)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # of a Sequence, slices are not needed
        shard, name = self._names[index]
        file, entry = self._file(shard), self.entries[index]

        def get(part: str) -> Tensor:
            return file.get_tensor(f"{name}/{part}")

        return Example(
            latents=get("latents"),
            captions=self._captions(shard, f"{name}/caption"),
            fps=entry.fps,
            stills=get("stills") if entry.stills else None,
            still_frames=tuple(get("still_frames").tolist()) if entry.stills else (),
            still_captions=self._captions(shard, f"{name}/still_caption"),
            ending=get("ending") if entry.has_ending else None,
        )

    def _read_header(self, number: int) -> None:
        file = self._file(number)
        names = set(file.keys())
        for name in sorted(key.removesuffix("/latents") for key in names if key.endswith("/latents")):
            shape = file.get_slice(f"{name}/latents").get_shape()
            stills = file.get_slice(f"{name}/stills").get_shape()[0] if f"{name}/stills" in names else 0
            entry = Entry(
                shard=number,
                shape=(shape[1], shape[2], shape[3]),
                fps=float(file.get_tensor(f"{name}/fps")),
                stills=stills,
                has_ending=f"{name}/ending" in names,
            )
            self._names.append((number, name))
            self.entries.append(entry)

    def _captions(self, shard: int, prefix: str) -> tuple[Tensor, ...]:
        wanted = itertools.takewhile(self._keys[shard].__contains__, (f"{prefix}{k}" for k in itertools.count()))
        return tuple(self._file(shard).get_tensor(key) for key in wanted)

    def _file(self, number: int) -> Any:
        if number not in self._opened:
            path = self.shards[number]
            try:
                file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise DataError(
                    f"{path} is damaged ({error}). Delete it and run the same openltx data precompute again."
                ) from error
            while len(self._opened) >= OPEN_SHARDS:
                self._opened.pop(next(iter(self._opened)))
            self._opened[number] = file
            self._keys.setdefault(number, frozenset(file.keys()))
        return self._opened[number]


def read_examples(folder: Path) -> list[Example]:
    """All examples of a folder, in memory; ``DataError`` if there are none."""
    return list(LatentFolder(folder))


def entries_of(examples: Sequence[Example]) -> list[Entry]:
    """What is known of each example; of a folder, without reading them."""
    if isinstance(examples, LatentFolder):
        return examples.entries
    return [
        Entry(
            shard=0,
            shape=(example.latents.shape[1], example.latents.shape[2], example.latents.shape[3]),
            fps=example.fps,
            stills=0 if example.stills is None else len(example.stills),
            has_ending=example.ending is not None,
        )
        for example in examples
    ]


def padded(captions: Sequence[Float[Tensor, "_ e"]]) -> tuple[Float[Tensor, "b l e"], Tensor]:
    """Token states as one batch in float32, padded with zeros to the longest, and the mask of the real ones."""
    text = torch.nn.utils.rnn.pad_sequence(list(captions), batch_first=True).float()
    lengths = torch.tensor([len(caption) for caption in captions])
    return text, torch.arange(text.shape[1]) < lengths[:, None]
