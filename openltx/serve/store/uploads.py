"""Uploads: pictures and clips that clients have sent, as they are known after decoding."""

from dataclasses import dataclass, fields
from typing import Literal

from sqlalchemy import delete, func, insert, select

from openltx.serve.settings import Limits
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import QueueFullError, bytes_used
from openltx.serve.store.tables import uploads


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One upload; see ``tables.uploads``."""

    id: str
    owner: str
    kind: Literal["picture", "clip"]
    filename: str
    purpose: str
    digest: str
    bytes: int
    frames: int
    width: int
    height: int
    created_at: float
    expires_at: float


class Uploads:
    """What is kept of clients' files."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    def add(self, upload: Upload) -> None:
        """Keep it; raises ``QueueFullError`` if its owner keeps too many, or the disk quota is reached."""
        with self._database.write(alone=True) as connection:
            own = connection.scalar(select(func.count()).where(uploads.c.owner == upload.owner)) or 0
            if own >= self._limits.uploads_per_key:
                message = f"You keep {own} uploads, as many as one key may. Delete some with DELETE /v1/files/ID."
                raise QueueFullError(message, "too_many_files", 60)
            if bytes_used(connection) + upload.bytes > self._limits.disk_bytes:
                message = "The disk space that this server may use is full. Delete videos or uploads you do not need."
                raise QueueFullError(message, "disk_quota_exceeded", 60)
            connection.execute(insert(uploads).values(**vars(upload)))

    def get(self, owner: str, upload_id: str) -> Upload | None:
        """An upload of this owner."""
        mine = (uploads.c.id == upload_id) & (uploads.c.owner == owner)
        with self._database.read() as connection:
            row = connection.execute(select(uploads).where(mine)).first()
        return None if row is None else _upload(row._mapping)

    def all(self, owner: str) -> list[Upload]:
        """The uploads of this owner, newest first."""
        chosen = select(uploads).where(uploads.c.owner == owner).order_by(uploads.c.created_at.desc())
        with self._database.read() as connection:
            return [_upload(row._mapping) for row in connection.execute(chosen)]

    def delete(self, owner: str, upload_id: str) -> bool:
        """Forget it; jobs that use it have a copy of their own. False if there is no such upload."""
        mine = (uploads.c.id == upload_id) & (uploads.c.owner == owner)
        with self._database.write() as connection:
            return connection.execute(delete(uploads).where(mine)).rowcount > 0

    def expire(self, now: float) -> list[str]:
        """Forget those whose time is over, and say which."""
        with self._database.write() as connection:
            ids = list(connection.scalars(select(uploads.c.id).where(uploads.c.expires_at <= now)))
            connection.execute(delete(uploads).where(uploads.c.id.in_(ids)))
            return ids

    def ids(self) -> set[str]:
        """The identifiers of all uploads."""
        with self._database.read() as connection:
            return set(connection.scalars(select(uploads.c.id)))

    def bytes(self) -> int:
        """The disk space of all results and uploads together."""
        with self._database.read() as connection:
            return bytes_used(connection)


def _upload(values) -> Upload:
    return Upload(**{field.name: values[field.name] for field in fields(Upload)})
