"""``openltx serve``: the server and its keys."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from openltx.errors import RequestError
from openltx.recipes.opening import ModelFlags
from openltx.recipes.upscaling import UpscalerFlags

serve_app = App(name="serve", help="Serve a model to clients of the OpenAI Videos API.")
keys_app = App(name="keys", help="Make, list and remove the server's API keys.")
serve_app.command(keys_app)


Store = Annotated[str | None, Parameter(env_var="OPENLTX_DATABASE")]


@serve_app.default
def serve(  # noqa: PLR0913 (each is a flag)
    model: str | None = None,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    data: Path | None = None,
    using: Annotated[ModelFlags | None, Parameter(name="*", consume_multiple=True, negative=())] = None,
    two_pass: Annotated[UpscalerFlags | None, Parameter(name="*", consume_multiple=True, negative_iterable="")] = None,
    threads: int | None = None,
    together: int = 4,
    queue: int = 100,
    jobs_per_key: int = 20,
    keep_days: float = 7.0,
    disk_gb: float = 50.0,
    upload_mb: float = 200.0,
    video_frames: int = 257,
    lost_seconds: float = 15.0,
    database: Store = None,
    ray: Annotated[bool, Parameter(negative=())] = False,
    replicas: int = 1,
    most_replicas: int | None = None,
) -> None:
    """Serve a model to clients of the OpenAI Videos API.

    Jobs and videos survive a restart. Without keys everybody on this machine may use the server; to let others in, make
    keys first: `openltx serve keys add NAME`.

    Parameters
    ----------
    model
        "playroom" (bundled), a released model that was pulled, or the path of a weight file or folder.
    host
        The address to listen on. Others than this machine's own need keys.
    port
        The port to listen on; 0 takes a free one.
    data
        The folder for the database and all files; ~/.local/share/openltx/server if left out.
    threads
        Threads for computing on the CPU; all cores if left out.
    together
        Small videos that differ in words, seed and first picture only are sampled together, at most so many at once.
    queue
        Jobs that may wait or run; more are answered with 429.
    jobs_per_key
        Jobs of one key that may wait or run.
    keep_days
        How long videos and uploads are kept.
    disk_gb
        Space for all videos and uploads, in gigabytes.
    upload_mb
        The largest upload, in megabytes.
    video_frames
        The longest video, in frames.
    lost_seconds
        With a database: a server that is silent for so long is lost, and another one makes its video.
    database
        A PostgreSQL that several servers share, as postgresql://USER:PASSWORD@HOST/NAME; they share the folder, too.
    ray
        Serve on Ray: several servers behind one address. Needs a database.
    replicas
        With Ray: how many servers there are, at least.
    most_replicas
        With Ray: how many there may be while videos wait; as many as at least, if left out.
    """
    from openltx.serve.server import serve as run
    from openltx.serve.settings import Limits, ServerSettings, data_folder

    using = using or ModelFlags()
    if model is not None and using.model is not None:
        raise RequestError(f'Two models are named, "{model}" and "{using.model}": leave one of them out.')
    settings = ServerSettings(
        data=(data or data_folder()).absolute(),
        host=host,
        port=port,
        using=replace(using, model=model or using.model).absolute(),
        upscaling=None if two_pass is None else two_pass.absolute(),
        threads=threads,
        together=together,
        database=database,
        limits=Limits(
            queue=queue,
            jobs_per_key=jobs_per_key,
            keep_seconds=86400 * keep_days,
            disk_bytes=int(1e9 * disk_gb),
            upload_bytes=int(1e6 * upload_mb),
            video_frames=video_frames,
            lost_seconds=lost_seconds,
        ),
    )
    if not ray:
        run(settings)
        return
    from openltx.serve.cluster import serve_on_ray

    serve_on_ray(settings, replicas, most_replicas or replicas)


@keys_app.command
def add(name: str, *, priority: int = 0, data: Path | None = None, database: Store = None) -> None:
    """Make a key and print it, once: only its hash is kept.

    Parameters
    ----------
    name
        Whose key it is.
    priority
        Jobs of keys with a higher priority come first.
    data
        The server's folder, as with `openltx serve --data`.
    database
        The servers' database, as with `openltx serve --database`.
    """
    with _keys(data, database) as keys:
        print(keys.add(name, priority)[1])


@keys_app.command(name="list")
def list_command(*, data: Path | None = None, database: Store = None) -> None:
    """Show the keys, without their secrets.

    Parameters
    ----------
    data
        The server's folder, as with `openltx serve --data`.
    database
        The servers' database, as with `openltx serve --database`.
    """
    with _keys(data, database) as keys:
        for key in keys.all():
            made = time.strftime("%Y-%m-%d", time.localtime(key.created_at))
            print(f"{key.name}  {key.hint}...  priority {key.priority}, made {made}")


@keys_app.command
def remove(name: str, *, data: Path | None = None, database: Store = None) -> None:
    """Revoke a key; a running server refuses it a second later.

    Parameters
    ----------
    name
        Whose key it is.
    data
        The server's folder, as with `openltx serve --data`.
    database
        The servers' database, as with `openltx serve --database`.
    """
    with _keys(data, database) as keys:
        keys.remove(name)


@contextmanager
def _keys(data: Path | None, database: str | None) -> Iterator[Any]:
    """The keys of a server's folder, which is made if it is new."""
    from openltx.serve.files import Files
    from openltx.serve.settings import ServerSettings, data_folder
    from openltx.serve.store.database import Database
    from openltx.serve.store.keys import Keys

    settings = ServerSettings(data=(data or data_folder()).absolute(), database=database)
    if not settings.is_shared:
        Files(settings.data).prepare()
    store = Database(settings.database_url)
    try:
        store.migrate()
        yield Keys(store)
    finally:
        store.close()
