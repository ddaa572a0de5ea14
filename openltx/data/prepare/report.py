"""What became of a folder of videos: numbers for a table, and contact sheets of what was kept and what was dropped."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from openltx.data.prepare.buckets import shapes
from openltx.data.prepare.looking import Group, keys_of
from openltx.data.prepare.records import Record
from openltx.data.prepare.run import Prepared
from openltx.errors import MediaError
from openltx.media.contact_sheet import contact_sheet, evenly_spaced
from openltx.media.io import read_video

ROWS, COLUMNS = 24, 8
KEPT, DROPPED = "kept.png", "dropped.png"


def summary(records: Sequence[Record]) -> list[tuple[str, int, float]]:
    """(what, clips, seconds): all, each reason to drop one (a clip may have several), and what is kept by bucket."""
    rows = [_row("cut from the videos", records)]
    reasons = Counter(kind_of(why) for record in records for why in record.dropped)
    rows += [_row(f"dropped: {why}", [r for r in records if why in map(kind_of, r.dropped)]) for why in reasons]
    kept = [record for record in records if not record.dropped]
    rows.append(_row("kept", kept))
    rows += [_row(f"kept: {bucket}", [r for r in kept if r.bucket == bucket]) for bucket in shapes(kept)]
    return rows


def kind_of(reason: str) -> str:
    """A reason without its numbers and names: what is counted together."""
    first = reason.split(":")[0]
    for kind in ("frozen", "looks like", "text", "aesthetic score", "only"):
        if first.startswith(kind):
            return {"looks like": "near-duplicate", "only": "mostly black bars", "text": "text over it"}.get(kind, kind)
    return first


def contact_sheets(made: Prepared) -> list[Path]:
    """Write the two pages: some of what was kept, as it was written, and some of what was dropped, with the reasons.

    What has not been written yet is shown from its video.
    """
    kept = [record for record in made.records if not record.dropped]
    dropped = [record for record in made.records if record.dropped]
    clips = {clip.truth["id"]: made.folder / clip.path for clip in made.clips}
    written = []
    for name, records in ((KEPT, kept), (DROPPED, dropped)):
        chosen = _some(records)
        frames = [read_video(clips[r.id])[0] if r.id in clips else _from_video(r, made) for r in chosen]
        rows = [(_title(r), found) for r, found in zip(chosen, frames, strict=True) if found is not None]
        if rows:
            _save(contact_sheet(rows, COLUMNS), made.folder / name)
            written.append(made.folder / name)
    return written


def _from_video(record: Record, made: Prepared) -> np.ndarray | None:
    """A few frames of a clip without its bars; None where it cannot be decoded."""
    path = next(source.path for source in made.sources if source.sha256 == record.sha256)
    try:
        ((_, keys),) = keys_of(Group(path, (record,)), COLUMNS)
    except MediaError:
        return None
    return keys


def _title(record: Record) -> str:
    place = f"{record.source} shot {record.shot}, frame {record.first}, {record.frames / record.fps:.1f} s"
    said = "; ".join(record.dropped) or record.caption
    return f"{place}: {said}" if said else place


def _row(name: str, records: Sequence[Record]) -> tuple[str, int, float]:
    return name, len(records), sum(record.frames / record.fps for record in records)


def _some(records: Sequence[Record]) -> list[Record]:
    return [records[place] for place in evenly_spaced(len(records), ROWS)] if records else []


def _save(page: Image.Image, path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial, format="PNG")
    partial.replace(path)
