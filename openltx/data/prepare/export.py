"""Clips of a prepared set as files: without bars, scaled to cover their bucket, cut at the centre and to its length."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openltx.data.filling import write_clip
from openltx.data.manifest import Clip
from openltx.data.prepare.looking import Group, walk
from openltx.data.prepare.records import Record
from openltx.data.prepare.settings import Bucket
from openltx.data.prepare.stage import cut_off
from openltx.errors import MediaError
from openltx.media.stream import Picture
from openltx.media.transforms import resize_cover


@dataclass(frozen=True)
class ExportStep:
    """The work on a group of clips, for a runner: writes their files; (id, why not) of those that cannot be."""

    folder: Path
    crf: int
    uses_network = False

    def __call__(self, group: Group) -> list[tuple[str, str | None]]:
        done: list[tuple[str, str | None]] = []
        try:
            for record, frames in walk(group, _fitted):
                kept = [frame for frame in frames if frame is not None]
                write_clip(self.folder / path_of(record), np.stack(kept), record.fps, crf=self.crf)
                done.append((record.id, None))
        except MediaError as error:
            there = {name for name, _ in done}
            done += [(record.id, str(error)) for record in group.records if record.id not in there]
        return done


def path_of(record: Record) -> str:
    """Where a clip lies: by bucket, named after the content it is cut from."""
    assert record.bucket is not None
    return f"clips/{record.bucket}/{record.id.replace('/', '-')}.mp4"


def clips_of_records(records: Sequence[Record]) -> list[Clip]:
    """The manifest that training reads."""
    return [_clip(record) for record in records if not record.dropped]


def _clip(record: Record) -> Clip:
    assert record.bucket is not None
    bucket = Bucket.parse(record.bucket)
    return Clip(
        path=path_of(record),
        frames=bucket.frames,
        height=bucket.height,
        width=bucket.width,
        fps=record.fps,
        caption=record.caption,
        split=record.split,
        truth={"source": record.source, "shot": record.shot, "first_frame": record.first, "id": record.id},
    )


def _fitted(record: Record, place: int, picture: Picture) -> UInt8[np.ndarray, "_ _ 3"] | None:
    """A frame of the clip file; None beyond the bucket's length."""
    assert record.bucket is not None
    bucket = Bucket.parse(record.bucket)
    if place >= bucket.frames:
        return None
    crop = record.measures["crop"]
    (inner,) = cut_off(picture.pixels()[None], crop["top"], crop["bottom"], crop["left"], crop["right"])
    return resize_cover(inner, bucket.height, bucket.width)
