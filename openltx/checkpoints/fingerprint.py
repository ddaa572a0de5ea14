"""SHA-256 of files and of modules: which weights made this?"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import torch
from torch import nn

from openltx.cache import cache_folder

REMEMBERED_FROM = 2**28  # bytes: a smaller file is hashed in a fraction of a second


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """``file_sha256``; that of a large file is kept in the cache for as long as its size and time do not change."""
    state = path.stat()
    if state.st_size < REMEMBERED_FROM:
        return file_sha256(path)
    notes = cache_folder() / "sha256.json"
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    known = _read(notes)
    if key not in known:
        known[key] = file_sha256(path)
        with contextlib.suppress(OSError):  # a full or read-only disk: the next start hashes again
            notes.parent.mkdir(parents=True, exist_ok=True)
            temporary = notes.with_name(f".{notes.name}.{os.getpid()}.part")
            temporary.write_text(json.dumps(known, indent=1))
            temporary.replace(notes)
    return known[key]


def _read(notes: Path) -> dict[str, str]:
    try:
        known = json.loads(notes.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def fingerprint(module: nn.Module) -> str:
    """Hexadecimal SHA-256 of a module's tensors: names, dtypes, shapes and values, whatever the device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
