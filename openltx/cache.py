"""Where files live that can be fetched, rendered, compiled or computed again."""

import contextlib
import os
from pathlib import Path

from torch import Tensor


def cache_folder() -> Path:
    """$OPENLTX_CACHE, else ~/.cache/openltx (or what XDG_CACHE_HOME says). Not created here."""
    if chosen := os.environ.get("OPENLTX_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openltx"


class TensorCache:
    """Tensors in files of a folder, by a key that says all they were made of.

    Beyond ``limit`` bytes those that were not used for longest are deleted. Nothing here fails: what cannot be read is
    not there, and what cannot be written is computed again next time.
    """

    def __init__(self, folder: Path, limit: int = 2**30) -> None:
        self.folder, self.limit = folder, limit

    def read(self, key: str) -> Tensor | None:
        """The tensor of a key, or None if there is none or its file is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(key)
        try:
            tensor = load(path.read_bytes())["tensor"]
            os.utime(path)
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return tensor if bool(tensor.isfinite().all()) else None

    def write(self, key: str, tensor: Tensor) -> None:
        """Keep a tensor of finite numbers; the file is whole or not there."""
        from safetensors.torch import save

        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(save({"tensor": tensor.cpu().contiguous()}))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            self._tidy()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _tidy(self) -> None:
        """Delete the oldest files until ``limit`` is kept."""
        files = [(path, path.stat()) for path in self.folder.glob("*.safetensors")]
        total = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size
