"""What machines can do: memory, and the rate of matrix products. This one is asked and measured, others are tabled."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from openltx.errors import RequestError

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_ROWS, _WIDTH = 1024, 2048  # of the product whose rate is measured


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a request might run.

    memory       bytes that a process can have
    flops        of bfloat16 matrix products in a second, at best: the maker's figure without sparsity, or measured
    utilisation  which part of ``flops`` is assumed to be reached on average
    link         bytes a second at which weights come from the disk
    """

    name: str
    memory: int
    flops: float
    utilisation: float
    link: float = 2e9
    is_cpu: bool = False


ACCELERATORS = {
    "h100": Machine(name="NVIDIA H100 SXM, 80 GB", memory=80 * 10**9, flops=989e12, utilisation=0.4),
    "4090": Machine(name="NVIDIA RTX 4090, 24 GB", memory=24 * 10**9, flops=165e12, utilisation=0.4),
    "m4-max": Machine(name="Apple M4 Max, 40 cores, 64 GB", memory=48 * 10**9, flops=18e12, utilisation=0.4),
}
"""Makers' figures; of an Apple machine's memory, its graphics may take about three quarters."""


def machine(name: str, dtype: torch.dtype) -> Machine:
    """A machine of the table, or "here": this one's CPU, with its rate measured for a second."""
    if name == "here":
        rate = measured_rate(dtype)
        memory = available_memory(torch.device("cpu"))
        return Machine(name=f"this CPU ({_processor()})", memory=memory, flops=rate, utilisation=0.7, is_cpu=True)
    if name not in ACCELERATORS:
        raise RequestError(f'There is no machine "{name}" in the table. Possible: here, {", ".join(ACCELERATORS)}.')
    return ACCELERATORS[name]


def available_memory(device: torch.device) -> int:
    """Bytes that this process can still have on a device, without making others leave."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    limits = [_physical_memory(), _cgroup_room()]
    return min(limit for limit in limits if limit is not None)


@torch.inference_mode()
def measured_rate(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of one matrix product after the other on this CPU, as many as go into ``seconds``."""
    from openltx.kernels.linear import Linear

    layer, x = Linear(_WIDTH, _WIDTH).to(dtype), torch.randn(_ROWS, _WIDTH).to(dtype)
    layer(x)
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        layer(x)
        count += 1
    return 2 * _ROWS * _WIDTH**2 * count / passed


def _physical_memory() -> int:
    """What the system could give: all that is free, and all that it holds of files and could read again."""
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 2**63 - 1


def _cgroup_room() -> int | None:
    """What a container's limit leaves, if there is one (cgroup version 2)."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    # pages of files count towards the limit, but give way
    return None if limit == "max" else max(int(limit) - int(counts.get("anon", 0)), 0)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
