"""How soon a cancelled job stops, in steps, and what is left of its memory.

python -m benchmarks.serve_cancel [--rounds 5] [--json FILE]
"""

import statistics
import sys
import time
from typing import Any

from benchmarks.serve_harness import Server, measured, resident_bytes

LARGE = {"steps": 200, "size": "384x256", "frames": 49, "seed": 1}


def measure(server: Server, rounds: int) -> dict[str, Any]:
    """Cancel a job in mid-sampling, ``rounds`` times."""
    server.make(**{**LARGE, "steps": 1})  # what is loaded once is no leak
    worker, latencies, steps = server.worker_pid(), [], []
    before, peaks, after = resident_bytes(worker), [], []
    for _ in range(rounds):
        job = server.call("POST", "/v1/videos", {"prompt": "a red ball", **LARGE}).json()
        path = f"/v1/videos/{job['id']}"
        began = None
        while (job := server.call("GET", path).json())["step"] < 4:
            began = time.time() if job["step"] == 1 and began is None else began
            time.sleep(0.02)
        assert began is not None
        of_one = (time.time() - began) / 3
        peaks.append(resident_bytes(worker))
        cancelled = time.time()
        assert server.call("POST", f"{path}/cancel").status == 200
        while not (
            dropped := [
                event for event in server.events() if event.get("job") == job["id"] and event["event"] == "job.dropped"
            ]
        ):
            time.sleep(0.01)
        latencies.append(dropped[0]["at"] - cancelled)
        steps.append(latencies[-1] / of_one)
        time.sleep(0.5)
        after.append(resident_bytes(worker))
    return {
        "cancelled jobs": rounds,
        "one step, s": statistics.median(latency / step for latency, step in zip(latencies, steps, strict=True)),
        "from cancel to stop, s": statistics.median(latencies),
        "from cancel to stop, steps": statistics.median(steps),
        "slowest, steps": max(steps),
        "worker's memory before, MiB": before / 2**20,
        "worker's memory while it works, MiB": max(peaks) / 2**20,
        "worker's memory afterwards, MiB": after[-1] / 2**20,
    }


if __name__ == "__main__":
    sys.exit(measured("cancelling", __doc__ or "", measure, rounds=5))
