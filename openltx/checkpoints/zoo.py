"""Releases on this machine: found by name in the hub's cache, and fetched only when somebody asks for it.

The cache is that of huggingface_hub, which other programs fill and read too. Nothing here touches the network but
``pull``.
"""

import difflib
import shutil
from collections.abc import Callable
from pathlib import Path

from openltx.checkpoints.releases import RELEASES, Release, ReleaseKind
from openltx.errors import AssetError, CheckpointError

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


def find_release(name: str, kind: ReleaseKind | None = None) -> Release:
    """The release of this name (or with a file of this name); raises ``CheckpointError`` with the names there are."""
    release = release_of(name)
    if release is None or (kind is not None and release.kind != kind):
        names = [one.name for one in RELEASES.values() if kind in (None, one.kind)]
        near = difflib.get_close_matches(name, names, n=1)
        is_other = f" (it is a release of another kind: {release.kind})" if release is not None else ""
        raise CheckpointError(
            f'There is no released {kind or "file"} called "{name}"{is_other}.'
            f"{f' Did you mean {near[0]}?' if near else ''} Possible: {', '.join(names)}."
        )
    return release


def release_of(name: str | Path) -> Release | None:
    """The release that goes by this name, or whose file has it (with or without folders and suffix); else None."""
    if Path(name).name in RELEASES:
        return RELEASES[Path(name).name]
    file = Path(name).name.removesuffix(".safetensors") + ".safetensors"
    return next((release for release in RELEASES.values() if release.file == file), None)


def names_a_path(name: str | Path) -> bool:
    """Whether this is meant as a file or folder, there or not, rather than as the name of a model."""
    path = Path(name)
    return path.exists() or path.suffix in WEIGHT_SUFFIXES or len(path.parts) > 1


def local_path(release: Release) -> Path | None:
    """Where the release lies on this machine: its file, or the folder that holds its folders; None if it does not."""
    import huggingface_hub

    looked_for = [release.file] if release.file else [f"{folder}/config.json" for folder in release.folders[:1]]
    found = [
        huggingface_hub.try_to_load_from_cache(release.repo, file, cache_dir=cache_place())
        for file in looked_for
        if file
    ]
    if not all(isinstance(path, str) for path in found):
        return None
    path = Path(str(found[0]))
    return path if release.file else path.parent.parent


def cache_place() -> Path:
    """The folder in which pulled releases lie."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def require_local(release: Release) -> Path:
    """Where the release lies; raises ``CheckpointError`` with the command that fetches it if it is not here."""
    path = local_path(release)
    if path is None:
        raise CheckpointError(
            f'"{release.name}" ({release.gigabytes:g} GB) is not on this machine. Fetch it once: openltx pull '
            f"{release.name}. Or give the path of {release.file or 'the folder with ' + ' and '.join(release.folders)}."
        )
    return path


def pull(release: Release, to: Path | None = None, report: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch a release into the hub's cache, or as plain files into the folder ``to``; gives the file or folder.

    A broken download goes on where it stopped. Nothing is fetched if it is here already. Raises ``AssetError``.
    """
    if to is None and (here := local_path(release)) is not None and release.file:
        return here
    place = to or cache_place()
    _require_room(release, place)
    report(f"fetching {release.file or ', '.join(release.folders)} ({release.gigabytes:g} GB) from {release.repo}")
    try:
        return _download(release, to)
    except Exception as error:  # the hub's client passes on its transports' errors, which have no common base
        raise AssetError(_failure(release, error)) from error


def _download(release: Release, to: Path | None) -> Path:
    import huggingface_hub

    if release.file:
        return Path(huggingface_hub.hf_hub_download(release.repo, release.file, local_dir=to))
    patterns = [f"{folder}/*" for folder in release.folders]
    return Path(huggingface_hub.snapshot_download(release.repo, allow_patterns=patterns, local_dir=to))


def _require_room(release: Release, place: Path) -> None:
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < release.gigabytes:
        raise AssetError(
            f"{release.name} takes {release.gigabytes:g} GB, and {place} has {free:.1f} GB free. Make room, or choose "
            "another disk with --to (or HF_HOME)."
        )


def _failure(release: Release, error: Exception) -> str:
    """What went wrong, and what to do about it, by the kind of error."""
    from huggingface_hub import errors

    what = f"{release.file or release.name} cannot be fetched from {release.repo}"
    match error:
        case errors.GatedRepoError():
            return f"{what}: it asks for your consent. Accept its licence on its page, then `hf auth login`."
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return f"{what}: the network cannot be reached, and it is not in the cache ({cache_place()}). Try later."
        case errors.EntryNotFoundError() | errors.RepositoryNotFoundError():
            return f"{what}: there is no such file any more. Give the path of a file that you have with --model."
    detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{what}: {detail}. What was fetched so far is kept; run the command again."
