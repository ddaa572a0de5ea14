"""A server's folder of files. No name in it comes from a client.

    server.db lock          the database; who holds the lock is the one server of this folder. Servers that share a
                            database share the folder, too, and the lock
    jobs/ID/                video.mp4 thumbnail.webp spritesheet.jpg preview.jpg, and inputs/, what the job was given
    uploads/                decoded uploads: ID.png or ID.mp4
    scratch/                what is being received or made
    trash/                  what is being deleted

Files are made in ``scratch`` and renamed into place. Folders are renamed into ``trash`` before they are
deleted. So whoever still writes to a deleted job fails cleanly, and after a kill the sweep at the next start finds
leftovers only where it may delete them.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from openltx.errors import ServeError

VARIANTS = {
    "video": ("video.mp4", "video/mp4"),
    "thumbnail": ("thumbnail.webp", "image/webp"),
    "spritesheet": ("spritesheet.jpg", "image/jpeg"),
}
"""What a finished job has: name and media type of each."""
PREVIEW = "preview.jpg"
SUFFIXES = {"picture": ".png", "clip": ".mp4"}
_FOLDERS = ("jobs", "uploads", "scratch", "trash")


class Files:
    """The files under one folder, by the identifiers of jobs and uploads."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folders, for this user alone; raises ``ServeError`` if that is not possible."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            for name in _FOLDERS:
                (self.root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise ServeError(
                f"Cannot keep files in {self.root}: {error.strerror}. Choose another folder with --data."
            ) from error

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Be the only server of this folder, or one of several; raises ``ServeError`` if another forbids it."""
        with (self.root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError:
                raise ServeError(
                    f"Another server uses {self.root} already. Stop it, or choose another folder with --data."
                ) from None
            yield

    def job(self, job_id: str) -> Path:
        return self.root / "jobs" / job_id

    def content(self, job_id: str, variant: str) -> Path:
        """Where a finished job's video, thumbnail or spritesheet is."""
        return self.job(job_id) / VARIANTS[variant][0]

    def input(self, job_id: str, name: str) -> Path:
        """What a job was given under the identifier ``name``; raises ``ServeError`` if it is not there any more."""
        for suffix in SUFFIXES.values():
            path = self.job(job_id) / "inputs" / f"{name}{suffix}"
            if path.is_file():
                return path
        raise ServeError(f"The input {name} of this job has vanished from the server. Send it again.")

    def upload(self, upload_id: str, kind: str) -> Path:
        return self.root / "uploads" / f"{upload_id}{SUFFIXES[kind]}"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder to make things in, gone afterwards."""
        folder = self.root / "scratch" / uuid4().hex
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def open_job(self, job_id: str, inputs: dict[str, Path]) -> None:
        """A folder for a new job, with links to its inputs, so that nobody can take them away from it."""
        folder = self.job(job_id) / "inputs"
        folder.mkdir(parents=True)
        for name, source in inputs.items():
            os.link(source, folder / f"{name}{source.suffix}")

    def hand_over(self, source: Path, job_id: str) -> int:
        """Move all files of a folder into a job's folder and flush them; gives their bytes.

        Raises ``FileNotFoundError`` if the job has been deleted meanwhile.
        """
        size, folder = 0, self.job(job_id)
        for path in sorted(source.iterdir()):
            size += path.stat().st_size
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(folder / path.name)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return size

    def discard_job(self, job_id: str) -> None:
        """Delete a job's folder, if it is there."""
        self._discard(self.job(job_id))

    def discard_upload(self, upload_id: str) -> None:
        """Delete an upload, if it is there."""
        for kind in SUFFIXES:
            self.upload(upload_id, kind).unlink(missing_ok=True)

    def sweep(self, jobs: Set[str], uploads: Set[str], untouched: float = 0.0) -> list[str]:
        """Delete everything that belongs to no job and no upload, and has not been touched for so many seconds.

        0 is for when nobody else works here.
        """
        before = time.time() - untouched
        swept = []
        for name, known in (("scratch", set()), ("trash", set()), ("jobs", jobs), ("uploads", uploads)):
            for path in (self.root / name).iterdir():
                if path.stem in known or (untouched and _is_newer(path, before)):
                    continue
                swept.append(f"{name}/{path.name}")
                _remove(path) if name in ("scratch", "trash") else self._discard(path)
        return swept

    def _discard(self, path: Path) -> None:
        grave = self.root / "trash" / uuid4().hex
        try:
            path.rename(grave)
        except FileNotFoundError:
            return
        _remove(grave)


def _is_newer(path: Path, then: float) -> bool:
    """Whether a file was touched after ``then``; one that somebody else has deleted counts as such."""
    try:
        return path.stat().st_mtime > then
    except FileNotFoundError:
        return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
