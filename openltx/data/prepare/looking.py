"""Decoding the clips of one video: each frame once, however many stages look at it, from the nearest key frame on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from openltx.data.aesthetic.features import views
from openltx.data.prepare.buckets import choose_bucket
from openltx.data.prepare.records import Measures, Record
from openltx.data.prepare.settings import BucketSettings
from openltx.data.prepare.stage import KEYS, SMALL_WIDTH, Judge, Look, Stage
from openltx.errors import MediaError
from openltx.media.contact_sheet import evenly_spaced
from openltx.media.stream import Picture, stream_pictures
from openltx.media.transforms import resize_cover

GROUP_FRAMES = 960  # clips of one video that lie within so many frames are decoded together: little is decoded twice

THINNEST = 16  # pixels of a small frame that stages can measure

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """Neighbouring clips of one video: a piece of work."""

    path: Path
    records: tuple[Record, ...]


def groups_of(records: Sequence[Record], paths: dict[str, Path]) -> list[Group]:
    """Records as pieces of work, in order. ``paths`` finds a video by its hash."""
    found: list[Group] = []
    for sha256, members in groupby(sorted(records, key=lambda r: (r.sha256, r.first)), key=lambda r: r.sha256):
        inside: list[Record] = []
        for record in members:
            if inside and record.first + record.frames - inside[0].first > GROUP_FRAMES:
                found.append(Group(paths[sha256], tuple(inside)))
                inside = []
            inside.append(record)
        found.append(Group(paths[sha256], tuple(inside)))
    return found


def walk(group: Group, convert: Callable[[Record, int, Picture], T]) -> Iterator[tuple[Record, list[T]]]:
    """Each clip of a group with what ``convert(record, place in the clip, frame)`` makes of its frames.

    One clip's results are in memory at a time. Raises ``MediaError`` if the video does not give the frames it gave
    before.
    """
    waiting = iter(group.records)
    record = next(waiting)
    places, made = _places(record), {}
    for index, picture in _pictures(group):
        for place in places.get(index, ()):
            made[place] = convert(record, place, picture)
        if index == record.indices[-1]:
            yield record, [made[place] for place in sorted(made)]
            record = next(waiting, None)
            if record is None:
                return
            places, made = _places(record), {}
    raise MediaError(f"{group.path} ends before the clip {record.id} does; it has changed.")


@dataclass(frozen=True)
class LookStep:
    """The work on a group of clips, for a runner: (id, measures by stage, views) of each.

    Only what a record lacks is measured. Views are for a ranker, of the picture as its bucket shows it; None without
    ``buckets``, or where the clip is in none.
    """

    stages: tuple[Stage, ...]
    buckets: BucketSettings | None
    uses_network = False

    def __call__(self, group: Group) -> list[tuple[str, dict[str, Measures], np.ndarray | None]]:
        done: list[tuple[str, dict[str, Measures], np.ndarray | None]] = []
        try:
            for record, look in looks(group):
                measured = dict(record.measures)
                for stage in self.stages:
                    if stage.name not in measured:
                        measured[stage.name] = stage.measure(look if stage.name == "crop" else inside(look, measured))
                done.append((record.id, measured, self._views(replace(record, measures=measured), look)))
        except MediaError as error:
            there = {name for name, _, _ in done}
            failed = {"decoding": {"failed": str(error)}}
            done += [(record.id, failed, None) for record in group.records if record.id not in there]
        return done

    def _views(self, record: Record, look: Look) -> np.ndarray | None:
        bucket = choose_bucket(record, self.buckets) if self.buckets else ""
        if isinstance(bucket, str):
            return None
        keys = inside(look, record.measures).keys
        return views(np.stack([resize_cover(key, bucket.height, bucket.width) for key in keys]))


class Decoding:
    """Judges whether a clip could be decoded a second time."""

    name = "decoding"

    def objection(self, measures: Measures) -> str | None:
        return measures["failed"]


def looks(group: Group) -> Iterator[tuple[Record, Look]]:
    """Each clip as stages see it."""

    def convert(record: Record, place: int, picture: Picture) -> tuple[np.ndarray, np.ndarray | None]:
        is_key = place in evenly_spaced(len(record.indices), KEYS)
        return picture.pixels(SMALL_WIDTH), picture.pixels() if is_key else None

    for record, frames in walk(group, convert):
        keys = [key for _, key in frames if key is not None]
        yield record, Look(fps=record.fps, small=np.stack([small for small, _ in frames]), keys=np.stack(keys))


def keys_of(group: Group, count: int) -> Iterator[tuple[Record, np.ndarray]]:
    """``count`` evenly spaced frames of each clip, without its bars, in full size."""

    def convert(record: Record, place: int, picture: Picture) -> np.ndarray | None:
        return picture.pixels() if place in evenly_spaced(len(record.indices), count) else None

    for record, frames in walk(group, convert):
        keys = np.stack([frame for frame in frames if frame is not None])
        yield record, inside(Look(fps=record.fps, small=keys, keys=keys), record.measures).keys


def inside(look: Look, measured: dict[str, Measures]) -> Look:
    """A look without the bars that were measured, if more than a strip is left."""
    crop = measured.get("crop")
    if crop is None or crop["left_over"] in (0.0, 1.0):
        return look
    cropped = look.without_bars(crop["top"], crop["bottom"], crop["left"], crop["right"])
    return cropped if min(cropped.small.shape[1:3]) >= THINNEST else look


def judge(record: Record, judges: Sequence[Judge]) -> Record:
    """The record with the objections of all judges to what was measured of it."""
    found = (judge.objection(record.measures[judge.name]) for judge in judges if judge.name in record.measures)
    return replace(record, dropped=tuple(reason for reason in found if reason is not None))


def _places(record: Record) -> dict[int, list[int]]:
    """At which places of the clip each frame of the source is shown."""
    found: dict[int, list[int]] = {}
    for place, index in enumerate(record.indices):
        found.setdefault(index, []).append(place)
    return found


def _pictures(group: Group) -> Iterator[tuple[int, Picture]]:
    """The frames of the video with their numbers, from the group's first on, or from its beginning where it cannot be
    sought in."""
    first = group.records[0]
    if first.pts is not None and first.first > 0:
        sought: Any = stream_pictures(group.path, start=first.pts, threads=1)
        try:
            begin = next(sought)
        except MediaError:
            pass  # a container whose index does not lead to this frame
        else:
            yield first.first, begin
            yield from enumerate(sought, first.first + 1)
            return
    yield from enumerate(stream_pictures(group.path, threads=1))
