"""What it brings to sample waiting videos together: a queue of small videos, one by one and in batches, in turn.

    python -m benchmarks.serve_batch [--videos 12] [--together 4] [--rounds 2] [--json FILE]

Both servers run on the same machine, one at a time has work. All videos are ordered at once; the first figure is the
time until the last is done, the second how long a client waits in the mean.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serve_harness import Server, arguments, publish


def measure(folder: Path, *, videos: int, together: int, rounds: int) -> dict[str, Any]:
    """Each server makes the same videos ``rounds`` times, in turn."""
    servers = {
        count: Server(folder / f"data{count}", flags=("--together", str(count))).start() for count in (1, together)
    }
    try:
        for server in servers.values():
            server.make()  # warm
        found = [(count, _seconds(server, videos)) for _ in range(rounds) for count, server in servers.items()]
    finally:
        for server in servers.values():
            server.stop()
    lasts = {count: statistics.median(last for one, (last, _) in found if one == count) for count in servers}
    means = {count: statistics.median(mean for one, (_, mean) in found if one == count) for count in servers}
    return {
        "videos": videos,
        **{f"all done, {count} together, s": seconds for count, seconds in lasts.items()},
        **{f"mean wait, {count} together, s": seconds for count, seconds in means.items()},
        "throughput": lasts[1] / lasts[together],
    }


def _seconds(server: Server, videos: int) -> tuple[float, float]:
    """How long until the last is done, and in the mean."""
    bodies = [{"prompt": f"a ball number {number}", "seed": number} for number in range(videos)]
    started, waits = time.perf_counter(), []
    for name in [server.call("POST", "/v1/videos", body).json()["id"] for body in bodies]:  # they end in this order
        assert server.wait_for(name)["status"] == "completed"
        waits.append(time.perf_counter() - started)
    return waits[-1], statistics.mean(waits)


def main() -> int:
    options = vars(arguments(__doc__ or "", videos=12, together=4, rounds=2))
    place = options.pop("json")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), **options)
    publish("small videos that wait, sampled together", rows, place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
