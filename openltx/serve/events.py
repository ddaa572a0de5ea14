"""A job's life as server-sent events: status, progress, preview, log, and in the end done or deleted.

Events are read from the store, so a client that comes back with Last-Event-ID gets what it has missed, from another
server process too. Of the previews only the latest picture is kept, and goes with the event as a data URL.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from openltx.serve.context import Context
from openltx.serve.files import PREVIEW
from openltx.serve.store.jobs import Event, Job
from openltx.serve.views import video_object

LOOK_SECONDS = 0.15
SILENCE_SECONDS = 15.0


async def stream(context: Context, owner: str, job_id: str, after: int) -> AsyncIterator[str]:
    """The events of a job behind the event ``after``, until it ends or the server stops; none if too many listen."""
    if context.streams.acquire(blocking=False):
        try:
            async for message in _follow(context, owner, job_id, after):
                yield message
        finally:
            context.streams.release()


async def _follow(context: Context, owner: str, job_id: str, after: int) -> AsyncIterator[str]:
    spoke = time.monotonic()
    while not context.stopping.is_set():
        job, happened = await context.look(_look, context, owner, job_id, after)
        if job is None:
            yield _message("deleted", {"id": job_id})
            return
        for event in happened:
            after = event.number
            yield _message(event.kind, await run_in_threadpool(_data, context, job, event), event.number)
        if job.is_finished:
            yield _message("done", video_object(job))
            return
        if happened:
            spoke = time.monotonic()
        elif time.monotonic() - spoke > SILENCE_SECONDS:  # so that nobody in between closes a quiet connection
            spoke = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(LOOK_SECONDS)


def _look(context: Context, owner: str, job_id: str, after: int) -> tuple[Job | None, list[Event]]:
    job = context.jobs.get(owner, job_id)  # first, so that a finished job has all its events in the second look
    return job, context.jobs.events(job_id, after) if job else []


def _data(context: Context, job: Job, event: Event) -> dict[str, Any]:
    data = {"at": round(event.at, 3), **event.data}
    if event.kind != "preview":
        return data
    try:
        picture = (context.files.job(job.id) / PREVIEW).read_bytes()
    except FileNotFoundError:
        return data
    return {**data, "image": f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"}


def _message(kind: str, data: dict[str, Any], number: int | None = None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"
