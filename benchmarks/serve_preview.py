"""From the order of a video to its first preview picture, on a server that is warm.

    python -m benchmarks.serve_preview [--rounds 7] [--json FILE]

The client listens to the job's events, as a page does; the model and the request are the bundled ones.
"""

import http.client
import json
import statistics
import sys
import time
from typing import Any

from benchmarks.serve_harness import Server, measured


def first_preview(server: Server) -> tuple[dict[str, float], str]:
    """Seconds from the order until the worker begins, until its first step is done and until a picture is here."""
    started = time.perf_counter()
    job = server.call("POST", "/v1/videos", {"prompt": f"a red ball, {started}"}).json()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", f"/v1/videos/{job['id']}/events")
    response, seconds, kind = connection.getresponse(), {}, ""
    while line := response.readline().decode().strip("\n"):
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = json.loads(value)
            now = time.perf_counter() - started
            if kind == "status" and data["status"] == "in_progress":
                seconds.setdefault("begun", now)
            elif kind == "progress" and data["step"] == 1:
                seconds.setdefault("step", now)
            elif kind == "preview" and "image" in data:
                connection.close()
                return {**seconds, "preview": now}, job["id"]
            response.readline()
    raise AssertionError("the events ended without a preview")


def measure(server: Server, rounds: int) -> dict[str, Any]:
    """Medians over ``rounds`` orders, each cancelled after its preview."""
    server.make(prompt="a red ball")
    found = []
    for _ in range(rounds):
        seconds, job = first_preview(server)
        server.call("POST", f"/v1/videos/{job}/cancel")
        server.wait_for(job)
        time.sleep(0.5)
        found.append(seconds)
    return {
        "orders": rounds,
        **{
            f"until {name}, s": statistics.median(each[name] for each in found) for name in ("begun", "step", "preview")
        },
        "slowest preview, s": max(each["preview"] for each in found),
    }


if __name__ == "__main__":
    sys.exit(measured("first preview", __doc__ or "", measure, rounds=7))
