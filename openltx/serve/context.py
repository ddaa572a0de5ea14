"""What the routes of one server share, and who is asking."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from openltx.serve.costs import Costs
from openltx.serve.decoding import Decoder
from openltx.serve.files import Files
from openltx.serve.metrics import Metrics
from openltx.serve.problems import ApiError
from openltx.serve.settings import ServerSettings
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Jobs
from openltx.serve.store.keys import Key, Keys
from openltx.serve.store.uploads import Uploads
from openltx.serve.store.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Context:
    """The parts of a server; ``stopping`` ends the event streams."""

    settings: ServerSettings
    database: Database
    files: Files
    jobs: Jobs
    keys: Keys
    uploads: Uploads
    workers: Workers
    decoder: Decoder
    costs: Costs
    metrics: Metrics
    streams: threading.Semaphore
    """How many more event streams may be opened."""
    stopping: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def open(settings: ServerSettings) -> "Context":
        """Make the folder and the database ready; raises ``ServeError``."""
        files = Files(settings.data)
        files.prepare()
        database = Database(settings.database_url)
        database.migrate()
        jobs, uploads = Jobs(database, settings.limits), Uploads(database, settings.limits)
        workers = Workers(database)
        return Context(
            settings=settings,
            database=database,
            files=files,
            jobs=jobs,
            keys=Keys(database),
            uploads=uploads,
            workers=workers,
            decoder=Decoder(settings.limits),
            costs=Costs(settings, jobs),
            metrics=Metrics(database, jobs, uploads, workers),
            streams=threading.Semaphore(settings.limits.streams),
        )

    async def look(self, read: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Read from the store: here and now from SQLite, where it is sooner done than handed to a thread."""
        if self.database.is_local:
            return read(*arguments, **named)
        return await run_in_threadpool(read, *arguments, **named)


async def context_of(request: Request) -> Context:
    """The context of the application that a request came to."""
    return request.app.state.context


async def caller(request: Request) -> Key:
    """Whose key the request carries; raises ``ApiError`` 401 without a valid one, if the server has keys."""
    context: Context = request.app.state.context
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    key = await context.look(context.keys.find, secret.strip() if scheme.lower() == "bearer" else "")
    if key is None:
        message = "This server wants an API key: send it as Authorization: Bearer KEY. Its operator makes keys."
        raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
    request.state.key = key.id
    return key


Here = Annotated[Context, Depends(context_of)]
Caller = Annotated[Key, Depends(caller)]
