"""From a file to the clips that may be cut from it: hashed, every frame decoded once, shots found, pieces planned.

A file is used whole or, when any part of it cannot be decoded, not at all: it is then listed with its reason. A file
without a constant frame rate is taken at its usual one, each tick showing the frame that is on show then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openltx.checkpoints.assets.archives import file_sha256
from openltx.data.cutting import clip_fps, plan_pieces, split_of_shot
from openltx.data.prepare.records import Record
from openltx.data.prepare.settings import CutSettings, PrepareSettings
from openltx.data.shots import Survey, survey
from openltx.data.sources import Source
from openltx.errors import MediaError
from openltx.geometry import LTX_COMPRESSION
from openltx.media.io import open_stream, stream_fps

SMALLEST = LTX_COMPRESSION.space
UNSTEADY = 0.5  # a frame on show for half as long or half as long again as usual: no constant rate


@dataclass(frozen=True)
class Ingest:
    """The work on one file, for a runner: a (path, name) becomes plain values."""

    settings: CutSettings
    uses_network = False

    def __call__(self, item: tuple[Path, str]) -> dict[str, Any]:
        path, _ = item
        try:
            return _ingest(path, self.settings)
        except (MediaError, OSError, ValueError) as error:
            return {"rejected": str(error)}


def _ingest(path: Path, settings: CutSettings) -> dict[str, Any]:
    with open_stream(path) as (_, stream):
        fps, unit = stream_fps(stream), float(stream.time_base)
    found = survey(path, detector=settings.detector)
    if not found.pts:
        return {"rejected": "There is no frame in it that can be decoded."}
    if min(found.size) < SMALLEST:
        return {"rejected": f"Its picture of {found.size[1]}x{found.size[0]} pixels is smaller than any clip's."}
    times = _seconds(found, unit)
    if times is not None:
        fps = round(1 / float(np.median(np.diff(times))), 3)
    plan = plan_pieces(found.shots, fps, settings, times, settings.per_shot)
    return {
        "sha256": file_sha256(path),
        "frames": len(found.pts),
        "height": found.size[0],
        "width": found.size[1],
        "fps": fps,
        "is_steady": times is None,
        "shots": plan.shots,
        "short_shots": plan.short_shots,
        "rest_frames": plan.rest_frames,
        "longest_shot": max((shot.frames for shot in found.shots), default=0),
        "pieces": [_piece(piece.shot, piece.indices, found) for piece in plan.pieces],
    }


def _seconds(found: Survey, unit: float) -> list[float] | None:
    """When each frame appears, if the rate is not constant and the file says; else None."""
    known = [pts for pts in found.pts if pts is not None]
    if len(known) < max(len(found.pts), 3):
        return None
    steps = np.diff(np.array(known)) * unit
    usual = float(np.median(steps))
    if usual <= 0 or (np.abs(steps / usual - 1) < UNSTEADY).all() or (steps < 0).any():
        return None
    return [pts * unit for pts in known]


def _piece(shot: int, indices: Sequence[int], found: Survey) -> dict[str, Any]:
    first, count = indices[0], len(indices)
    picks = None if tuple(indices) == tuple(range(first, first + count)) else [index - first for index in indices]
    return {"shot": shot, "first": first, "frames": count, "picks": picks, "pts": found.pts[first]}


def records_of(source: Source, facts: dict[str, Any], settings: PrepareSettings) -> list[Record]:
    """A record for each piece of a file."""
    return [
        Record(
            id=f"{source.sha256[:12]}/{piece['shot']:05d}-{piece['first']:07d}",
            source=source.name,
            sha256=source.sha256,
            shot=piece["shot"],
            first=piece["first"],
            frames=piece["frames"],
            picks=None if piece["picks"] is None else tuple(piece["picks"]),
            pts=piece["pts"],
            fps=clip_fps(source.fps, settings.cut),
            height=facts["height"],
            width=facts["width"],
            split=split_of_shot(source.sha256, piece["shot"], settings.export),
            credit=source.credit,
            caption=source.caption,
        )
        for piece in facts["pieces"]
    ]
