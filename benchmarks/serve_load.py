"""Reads while a video is made: their latency, what they cost the server, and how much they slow it.

    python -m benchmarks.serve_load [--rate 100] [--seconds 30] [--rounds 3] [--json FILE]

Reads (a list of 20 jobs, one job, a video's file, in turn) are sent at fixed times whatever the answers do, and a
latency counts from the time at which the read was due. The client is a process of its own on the same cores. The same
video is made with and without reads, in turn.
"""

import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from benchmarks.serve_harness import Server, cpu_seconds, measured

CONNECTIONS = 16


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """One request on an open connection; gives the bytes of its body."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200"), head
    length = int(head.partition("content-length:")[2].split()[0])
    await reader.readexactly(length)
    return length


async def _load(port: int, paths: list[str], rate: int, sender: Connection) -> None:
    """Reads at ``rate`` a second until told to stop; sends the latencies by path."""
    free: asyncio.Queue = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    latencies: dict[str, list[float]] = {path: [] for path in paths}

    async def one(path: str, due: float) -> None:
        connection = await free.get()
        await _read(*connection, path)
        latencies[path].append(time.perf_counter() - due)
        free.put_nowait(connection)

    started, tasks = time.perf_counter(), []
    for number, path in enumerate(cycle(paths)):
        due = started + number / rate
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        if sender.poll():
            break
        tasks.append(asyncio.create_task(one(path, due)))
    await asyncio.gather(*tasks)
    sender.send(latencies)


def _client(port: int, paths: list[str], rate: int, sender: Connection) -> None:
    uvloop.run(_load(port, paths, rate, sender))


def measure(server: Server, *, rate: int, seconds: int, rounds: int) -> dict[str, Any]:
    """Make a video of about ``seconds`` again and again, with and without reads."""
    video = {"size": "384x256", "frames": 49}
    done = [server.make(steps=1, frames=9, size="64x64")["id"] for _ in range(20)]
    probe = server.make(**video, steps=4)
    steps = max(round(4 * seconds / max(probe["stages"]["sample"], 1e-3)), 4)
    paths = ["/v1/videos?limit=20", f"/v1/videos/{done[0]}", f"/v1/videos/{done[0]}/content"]
    quiet, loaded, costs, idle = [], [], [], []
    latencies: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(rounds):
        before, since = cpu_seconds(server.pid), time.perf_counter()
        quiet.append(_seconds(server, video, steps))
        idle.append((cpu_seconds(server.pid) - before) / (time.perf_counter() - since))
        ours, theirs = multiprocessing.Pipe()
        client = multiprocessing.Process(target=_client, args=(server.port, paths, rate, theirs))
        before, since = cpu_seconds(server.pid), time.perf_counter()
        client.start()
        loaded.append(_seconds(server, video, steps))
        ours.send("stop")
        found = ours.recv()
        used = cpu_seconds(server.pid) - before - idle[-1] * (time.perf_counter() - since)
        client.join()
        for path, times in found.items():
            latencies[path] += times
        costs.append(used / sum(map(len, found.values())))
    every = sorted(latency for times in latencies.values() for latency in times)
    return {
        "reads": len(every),
        "reads a second": rate,
        "p50, ms": 1000 * statistics.median(every),
        "p99, ms": 1000 * every[int(0.99 * len(every))],
        "slowest, ms": 1000 * every[-1],
        **{f"p99 of {name}, ms": 1000 * _p99(latencies[path]) for name, path in zip(_NAMES, paths, strict=True)},
        "server CPU a read, ms": 1000 * statistics.median(costs),
        "server CPU without reads, ms a second": 1000 * statistics.median(idle),
        "generation without reads, s": statistics.median(quiet),
        "generation with reads, s": statistics.median(loaded),
        "generation slowed by, %": 100 * (statistics.median(loaded) / statistics.median(quiet) - 1),
    }


_NAMES = ("list", "status", "content")


def _p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * len(times))]


def _seconds(server: Server, video: dict[str, Any], steps: int) -> float:
    """How long the worker needs for a video; asking is left to the events at its end, not to polling."""
    job = server.call("POST", "/v1/videos", {"prompt": "a red ball", **video, "steps": steps, "seed": 1}).json()
    server.call("GET", f"/v1/videos/{job['id']}/events")  # ends with the job
    job = server.call("GET", f"/v1/videos/{job['id']}").json()
    assert job["status"] == "completed", json.dumps(job)
    return sum(job["stages"][stage] for stage in ("prepare", "sample", "decode", "write"))


if __name__ == "__main__":
    sys.exit(measured("reads while a video is made", __doc__ or "", measure, rate=100, seconds=30, rounds=3))
