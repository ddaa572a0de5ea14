"""The asset store: an ``Asset`` says what is fetched and how its files are made of it; ``pull`` does it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openltx.cache import cache_folder
from openltx.checkpoints.assets.archives import Archive, check, fetch
from openltx.errors import AssetError


@dataclass(frozen=True, kw_only=True)
class Asset:
    """What is fetched, from where, under which licence, and how its files come out of it.

    ``make(archive, members[key], target)`` writes one file from the fetched archive; ``digest`` of that file must then
    be ``digests[key]``. ``credit`` is what must be named by whoever passes the work on.
    """

    name: str
    archive: Archive
    licence: str
    origin: str
    credit: str | None = None
    suffix: str
    members: dict[str, str]
    make: Callable[[Path, str, Path], None]
    digest: Callable[[Path], str]
    digests: dict[str, str]

    @property
    def files(self) -> dict[str, Path]:
        """Where the files of this asset lie (or will lie), by key."""
        return {key: cache_folder() / "assets" / f"{self.name}-{key}{self.suffix}" for key in self.digests}

    @property
    def is_present(self) -> bool:
        """Whether every file of this asset is in the cache."""
        return all(path.is_file() for path in self.files.values())


def pull(asset: Asset, *, archive: Path | None = None, report: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Fetch an asset (or take its ``archive`` from disk), make its files, check them, and put them into the cache.

    Returns the files. Nothing is fetched when all are there already. Raises AssetError when the download fails or a
    hash differs; the cache is then as before.
    """
    paths = list(asset.files.values())
    if asset.is_present:
        return paths
    with tempfile.TemporaryDirectory(prefix="openltx-assets-") as folder:
        if archive is None:
            report(f"fetching {asset.archive} ({asset.archive.megabytes} MB) with {asset.archive.client}")
            archive = fetch(asset.archive, Path(folder), asset.name)
        report(f"checking {archive.name}")
        check(asset.archive, archive)
        _make_files(asset, archive, report)
    return paths


def _make_files(asset: Asset, archive: Path, report: Callable[[str], None]) -> None:
    """All files of the asset, or none: they are renamed into the cache when the last one is made and checked."""
    home = cache_folder() / "assets"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=home) as folder:
        for key, path in asset.files.items():
            report(f"making {key} -> {path}")
            made = Path(folder) / path.name
            asset.make(archive, asset.members[key], made)
            if (found := asset.digest(made)) != asset.digests[key]:
                raise AssetError(
                    f"{path.name}, made of {archive.name}, has digest {found}, expected {asset.digests[key]}. Nothing "
                    f"was changed. Fetch {asset.archive} again, or give the right file with --archive."
                )
        for path in asset.files.values():
            (Path(folder) / path.name).replace(path)
