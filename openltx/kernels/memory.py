"""Freed memory, given back to the system."""

import ctypes
import functools
import sys
from collections.abc import Callable


def trim() -> None:
    """Have the C library return what was freed. glibc keeps blocks of up to 32 MiB, in pieces, for a later time."""
    if (release := _malloc_trim()) is not None:
        release(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
