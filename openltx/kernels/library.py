"""The compiled kernels: built once with the system's C compiler, kept in the cache, loaded with ctypes.

Never required: without a compiler, on another system, or with ``OPENLTX_KERNELS=off``, ``native()`` is None and the
plain formulas run. The library shares torch's own OpenMP threads, so ``torch.set_num_threads`` counts for both.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from openltx.cache import cache_folder

SWITCH = "OPENLTX_KERNELS"
SOURCES = ("numbers.h", "tiles.h", "fused.c", "attention.c", "volume.c", "winograd.c", "int8.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fno-trapping-math", "-fno-math-errno", "-fopenmp", "-fPIC")

_log = logging.getLogger(__name__)


class NoKernelsError(Exception):
    """Why there are no compiled kernels on this machine; caught in ``native``."""


@functools.cache
def native() -> ctypes.CDLL | None:
    """The compiled kernels, built on the first call (a few seconds) if the cache has none; None without them."""
    try:
        return _load()
    except NoKernelsError as reason:
        _log.info("no compiled CPU kernels: %s", reason)
        return None


def computes_in_bfloat16() -> bool:
    """Whether the compiled kernels are there and the processor multiplies in bfloat16."""
    library = native()
    return library is not None and hasattr(library, "openltx_attention") and bool(library.openltx_attention_bfloat16())


def usable(*tensors: Tensor) -> bool:
    """Whether the compiled kernels can take these tensors: real CPU tensors of float32 or bfloat16, in eager mode."""
    if torch.compiler.is_compiling() or native() is None:
        return False
    return all(
        type(x) in (Tensor, torch.nn.Parameter) and x.is_cpu and x.dtype in (torch.float32, torch.bfloat16)
        for x in tensors
    )


def _load() -> ctypes.CDLL:
    if os.environ.get(SWITCH, "on").lower() in ("off", "0", "false", "no"):
        raise NoKernelsError(f"switched off by {SWITCH}")
    if not sys.platform.startswith("linux"):
        raise NoKernelsError("they are built on Linux only")
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    sources = [resources.files("openltx.kernels").joinpath("native", name) for name in SOURCES]
    key = hashlib.sha256(
        "\0".join([*(s.read_text() for s in sources), *FLAGS, str(compiler), _processor()]).encode()
    ).hexdigest()[:16]
    path = cache_folder() / "kernels" / f"openltx-{key}.so"
    if not path.is_file():
        if compiler is None:
            raise NoKernelsError("there is no C compiler (gcc)")
        with resources.as_file(resources.files("openltx.kernels").joinpath("native")) as folder:
            _build(compiler, folder, path)
    _share_openmp()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernelsError(f"{path} cannot be loaded: {error}") from error


def _build(compiler: str, folder: Path, path: Path) -> None:
    """Compile, without linking an OpenMP of its own: torch's is in the process already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            objects = []
            for source in SOURCES:
                if source.endswith(".c"):
                    objects.append(str(Path(scratch) / f"{source}.o"))
                    _run([compiler, *FLAGS, "-c", str(folder / source), "-o", objects[-1]])
            built = Path(scratch) / path.name
            _run([compiler, "-shared", *objects, "-o", str(built), "-lm"])
            built.replace(path)
    except OSError as error:
        raise NoKernelsError(f"{path.parent} cannot be written: {error}") from error


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoKernelsError(f"{' '.join(command[:1])} failed: {done.stderr.strip()[-500:]}")


def _share_openmp() -> None:
    """Make the symbols of torch's OpenMP visible to the library that is loaded next."""
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
    names = [path for path in mapped if Path(path).name.startswith(("libgomp", "libiomp"))]
    if not names:
        raise NoKernelsError("torch runs without OpenMP here")
    for name in names:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def _processor() -> str:
    """What the machine code depends on: a cache may be shared by several kinds of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return platform.machine() + "".join(
        sorted({line for line in lines if line.startswith(("flags", "Features", "model\t"))})
    )
