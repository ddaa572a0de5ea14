"""Shards of a prepared set, for training over a network: WebDataset's tar files or Parquet, beside the plain folder.

Each holds whole clips, as MP4 files with their caption and their line of the manifest, in the order of the manifest,
training and held-out clips apart. The same set gives the same bytes. A shard appears whole, and one that is there
already is not written again; ``index.json`` says of which manifest they are.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from openltx.data.manifest import Clip, write_atomically
from openltx.errors import DataError

SHARDS, INDEX = "shards", "index.json"
SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}


def write_shards(
    folder: Path,
    clips: Sequence[Clip],
    kind: Literal["webdataset", "parquet"],
    per_shard: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Path]:
    """Write all shards of a set; those of another manifest, kind or size are removed."""
    home = folder / SHARDS
    home.mkdir(exist_ok=True)
    lines = json.dumps([asdict(clip) for clip in clips], sort_keys=True)
    index = {"kind": kind, "per_shard": per_shard, "manifest": hashlib.sha256(lines.encode()).hexdigest()}
    plan = [
        (home / f"{split}-{number:06d}{SUFFIXES[kind]}", inside[first : first + per_shard])
        for split in ("train", "heldout")
        for inside in [[clip for clip in clips if clip.split == split]]
        for number, first in enumerate(range(0, len(inside), per_shard))
    ]
    if not (home / INDEX).is_file() or json.loads((home / INDEX).read_text()) != index:
        for former in home.iterdir():
            former.unlink()
        write_atomically(home / INDEX, (json.dumps(index, indent=2) + "\n").encode())
    write = _webdataset if kind == "webdataset" else _parquet
    for number, (path, inside) in enumerate(plan):
        if not path.is_file():
            write(path, folder, inside)
        progress(number + 1, len(plan))
    return [path for path, _ in plan]


def _webdataset(path: Path, folder: Path, clips: Sequence[Clip]) -> None:
    """A tar file: key.mp4, key.txt, key.json of each clip, without times and owners."""
    partial = path.with_name(path.name + ".partial")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip in clips:
            key = Path(clip.path).stem
            for suffix, content in (
                (".mp4", (folder / clip.path).read_bytes()),
                (".txt", clip.caption.encode()),
                (".json", json.dumps(asdict(clip), ensure_ascii=False).encode()),
            ):
                member = tarfile.TarInfo(key + suffix)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    partial.replace(path)


def _parquet(path: Path, folder: Path, clips: Sequence[Clip]) -> None:
    """A table with a row for each clip: its manifest's fields and its file's bytes."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f'Parquet needs pyarrow ({error}): pip install "openltx[shards]"') from error
    rows: list[dict[str, Any]] = [
        asdict(clip) | {"truth": json.dumps(clip.truth), "video": (folder / clip.path).read_bytes()} for clip in clips
    ]
    partial = path.with_name(path.name + ".partial")
    parquet.write_table(pyarrow.Table.from_pylist(rows), partial, compression="none")
    partial.replace(path)
