"""Where files live that can be fetched, rendered or compiled again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$OPENLTX_CACHE, else ~/.cache/openltx (or what XDG_CACHE_HOME says). Not created here."""
    if chosen := os.environ.get("OPENLTX_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openltx"
