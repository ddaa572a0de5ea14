"""``openltx serve``: the server and its keys."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from openltx.pipelines.residency import Device, Precision

serve_app = App(name="serve", help="Serve a model to clients of the OpenAI Videos API.")
keys_app = App(name="keys", help="Make, list and remove the server's API keys.")
serve_app.command(keys_app)


@serve_app.default
def serve(  # noqa: PLR0913 (each is a flag)
    model: str = "playroom",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    data: Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    queue: int = 100,
    jobs_per_key: int = 20,
    keep_days: float = 7.0,
    disk_gb: float = 50.0,
    upload_mb: float = 200.0,
    video_frames: int = 257,
) -> None:
    """Serve a model to clients of the OpenAI Videos API.

    Jobs and videos survive a restart. Without keys everybody on this machine may use the server; to let others in, make
    keys first: `openltx serve keys add NAME`.

    Parameters
    ----------
    model
        "playroom" (bundled), or the path of a weight file.
    host
        The address to listen on. Others than this machine's own need keys.
    port
        The port to listen on; 0 takes a free one.
    data
        The folder for the database and all files; ~/.local/share/openltx/server if left out.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    precision
        Number format; auto takes bfloat16 where the hardware computes in it, else float32.
    threads
        Threads for computing on the CPU; all cores if left out.
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
    """
    from openltx.serve.server import serve as run
    from openltx.serve.settings import Limits, ServerSettings, data_folder

    limits = Limits(
        queue=queue,
        jobs_per_key=jobs_per_key,
        keep_seconds=86400 * keep_days,
        disk_bytes=int(1e9 * disk_gb),
        upload_bytes=int(1e6 * upload_mb),
        video_frames=video_frames,
    )
    run(
        ServerSettings(
            data=(data or data_folder()).absolute(),
            model=model if not Path(model).exists() else str(Path(model).absolute()),
            host=host,
            port=port,
            device=device,
            precision=precision,
            threads=threads,
            limits=limits,
        )
    )


@keys_app.command
def add(name: str, *, priority: int = 0, data: Annotated[Path | None, Parameter(name="--data")] = None) -> None:
    """Make a key and print it, once: only its hash is kept.

    Parameters
    ----------
    name
        Whose key it is.
    priority
        Jobs of keys with a higher priority come first.
    data
        The server's folder, as with `openltx serve --data`.
    """
    with _keys(data) as keys:
        print(keys.add(name, priority)[1])


@keys_app.command(name="list")
def list_command(*, data: Path | None = None) -> None:
    """Show the keys, without their secrets.

    Parameters
    ----------
    data
        The server's folder, as with `openltx serve --data`.
    """
    with _keys(data) as keys:
        for key in keys.all():
            made = time.strftime("%Y-%m-%d", time.localtime(key.created_at))
            print(f"{key.name}  {key.hint}...  priority {key.priority}, made {made}")


@keys_app.command
def remove(name: str, *, data: Path | None = None) -> None:
    """Revoke a key; a running server refuses it from then on.

    Parameters
    ----------
    name
        Whose key it is.
    data
        The server's folder, as with `openltx serve --data`.
    """
    with _keys(data) as keys:
        keys.remove(name)


@contextmanager
def _keys(data: Path | None) -> Iterator[Any]:
    """The keys of a server's folder, which is made if it is new."""
    from openltx.serve.files import Files
    from openltx.serve.settings import ServerSettings, data_folder
    from openltx.serve.store.database import Database
    from openltx.serve.store.keys import Keys

    settings = ServerSettings(data=(data or data_folder()).absolute())
    Files(settings.data).prepare()
    database = Database(settings.database_url)
    try:
        database.migrate()
        yield Keys(database)
    finally:
        database.close()
