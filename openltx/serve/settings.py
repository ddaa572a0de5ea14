"""How a server is set up: where it listens, where it keeps its files, and what it refuses."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from openltx.pipelines.request import as_tuples
from openltx.recipes.opening import Choice, ModelFlags
from openltx.recipes.upscaling import UpscalerFlags

Flags = TypeVar("Flags", ModelFlags, UpscalerFlags)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes on. Bytes, seconds and pixels are plain numbers."""

    queue: int = 100
    """Jobs that wait or run, of all keys together; one more is answered with 429."""
    jobs_per_key: int = 20
    """Jobs that wait or run of one key."""
    video_frames: int = 257
    """Frames of a generated video."""
    video_pixels: int = 257 * 1216 * 704
    """Width times height times frames of a generated video."""
    extended_frames: int = 2000
    """Frames of a video with all that it continues."""
    steps: int = 200
    """Denoising steps of a generated video."""
    prompt_characters: int = 8000
    """Length of a prompt or negative prompt."""
    upload_bytes: int = 200_000_000
    """Size of one request's body with files in it."""
    json_bytes: int = 20_000_000
    """Size of a JSON body; pictures may be in it as data URLs."""
    upload_frames: int = 600
    """Frames of an uploaded clip."""
    upload_side: int = 8192
    """Width or height of an uploaded picture or clip."""
    upload_pixels: int = 600 * 1280 * 720
    """Width times height times frames of an upload; a single picture may have a twentieth of it."""
    uploads_per_key: int = 200
    """Uploads that one key keeps at the same time."""
    decode_seconds: int = 60
    """Time for decoding one upload, of the clock and of the processor."""
    decode_bytes: int = 1_500_000_000
    """Memory for decoding one upload."""
    connections: int = 200
    """Requests that are answered at the same time; one more gets 503."""
    streams: int = 60
    """Event streams among them."""
    header_seconds: float = 10.0
    """Time that a client has to send the head of a request."""
    header_bytes: int = 65_536
    """Size of the head of a request, to within one packet."""
    body_seconds: float = 300.0
    """Time that a client has to send the whole body."""
    disk_bytes: int = 50_000_000_000
    """All uploads and results together; beyond it new work is answered with 429."""
    keep_seconds: float = 7 * 86400.0
    """How long results and unused uploads are kept."""
    forget_seconds: float = 30 * 86400.0
    """How long after that a job is still listed."""
    crashes: int = 3
    """A job that the worker dies of so often is given up."""
    lost_seconds: float = 15.0
    """A worker of another server without a sign of life for so long has been lost; its job runs again."""
    hang_seconds: float = 60.0
    """A worker without a sign of life for so long is ended and started again."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything that ``openltx serve`` is told, for the web process and, as JSON, for the worker."""

    data: Path
    """The folder of all files, and of the database if there is no other; one that all servers of a database share."""
    host: str = "127.0.0.1"
    port: int = 8000
    using: ModelFlags = field(default_factory=ModelFlags)
    """The model, and how the worker loads it."""
    upscaling: UpscalerFlags | None = None
    threads: int | None = None
    """Threads that the worker computes with; None is torch's own choice."""
    together: int = 4
    """How many small videos are sampled in one batch, at most."""
    database: str | None = None
    """SQLAlchemy's address of a store that several servers share; None for SQLite in ``data``, with one server."""
    limits: Limits = field(default_factory=Limits)

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the store."""
        return self.database or f"sqlite:///{self.data / 'server.db'}"

    @property
    def is_shared(self) -> bool:
        """Whether other servers may work on the same store and files."""
        return self.database is not None

    @property
    def source(self) -> str:
        """The model and how it is loaded, in one text: what a worker finds out about it is kept under that."""
        upscaling = None if self.upscaling is None else asdict(self.upscaling)
        return json.dumps([asdict(self.using), upscaling], default=str)

    def choose(self) -> Choice:
        """What makes the videos; raises ``OpenLTXError`` for names of no model."""
        return self.using.choose(self.upscaling, None)

    def to_json(self) -> str:
        """These settings as one JSON object."""
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(text: str) -> "ServerSettings":
        """The inverse of ``to_json``."""
        values = json.loads(text)
        upscaling = values["upscaling"]
        given = {
            "data": Path(values["data"]),
            "using": _flags(ModelFlags, values["using"]),
            "upscaling": None if upscaling is None else _flags(UpscalerFlags, upscaling),
            "limits": Limits(**values["limits"]),
        }
        return ServerSettings(**{**values, **given})


def _flags(kind: type[Flags], values: dict[str, Any]) -> Flags:
    """Flags of paths, lists and plain values from their JSON."""
    hints = get_type_hints(kind)
    paths = {name: Path(value) for name, value in values.items() if value is not None and hints[name] == Path | None}
    return kind(**{**as_tuples(values), **paths})


def data_folder() -> Path:
    """Where a server keeps its files if it is not told: $XDG_DATA_HOME/openltx/server, else under ~/.local/share."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "openltx" / "server"
