"""How a server is set up: where it listens, where it keeps its files, and what it refuses."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from openltx.pipelines.residency import Device, Precision


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
    hang_seconds: float = 60.0
    """A worker without a sign of life for so long is ended and started again."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything that ``openltx serve`` is told, for the web process and, as JSON, for the worker."""

    data: Path
    """The folder of the database and of all files."""
    model: str = "playroom"
    host: str = "127.0.0.1"
    port: int = 8000
    device: Device = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    """Threads that the worker computes with; None is torch's own choice."""
    limits: Limits = field(default_factory=Limits)

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the store."""
        return f"sqlite:///{self.data / 'server.db'}"

    def to_json(self) -> str:
        """These settings as one JSON object."""
        return json.dumps({**asdict(self), "data": str(self.data)})

    @staticmethod
    def from_json(text: str) -> "ServerSettings":
        """The inverse of ``to_json``."""
        values = json.loads(text)
        return ServerSettings(**{**values, "data": Path(values["data"]), "limits": Limits(**values["limits"])})


def data_folder() -> Path:
    """Where a server keeps its files if it is not told: $XDG_DATA_HOME/openltx/server, else under ~/.local/share."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "openltx" / "server"
