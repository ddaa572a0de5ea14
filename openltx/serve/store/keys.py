"""API keys. A secret is shown once, when it is made; only its SHA-256 is kept.

The secrets are 256 random bits, so a plain hash is enough: there is nothing to guess by trying.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass, fields

from sqlalchemy import bindparam, delete, func, insert, literal, select

from openltx.errors import ServeError
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import new_id
from openltx.serve.store.tables import keys

_PREFIX = "oltx-"
_KNOWN_SECONDS = 1.0
_HINT = len(_PREFIX) + 4


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key without its secret. Its ``id`` owns the jobs and uploads that are made with it."""

    id: str
    name: str
    hint: str
    priority: int
    created_at: float


NOBODY = Key(id="", name="", hint="", priority=0, created_at=0.0)
"""Who asks while a server has no keys at all."""

_COLUMNS = [keys.c[field.name] for field in fields(Key)]
_ANYONE = select(func.count()).select_from(keys).scalar_subquery().label("anyone")
_FIND = select(*_COLUMNS, _ANYONE).select_from(
    select(literal(1)).subquery().outerjoin(keys, keys.c.hash == bindparam("hash"))
)
"""One row always: the key, if there is one, and how many there are. Built once: that is half of the time it takes."""


class Keys:
    """The keys of a server."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, Key] = {}  # by hash, as found in this second
        self._known_until = 0.0

    def add(self, name: str, priority: int = 0) -> tuple[Key, str]:
        """A new key and its secret; raises ``ServeError`` if the name is empty or taken."""
        if not name.strip():
            raise ServeError("The key has no name. Say whose it is: openltx serve keys add NAME")
        secret = _PREFIX + secrets.token_urlsafe(32)
        key = Key(id=new_id("key_"), name=name, hint=secret[:_HINT], priority=priority, created_at=time.time())
        with self._database.write(alone=True) as connection:
            if connection.scalar(select(keys.c.id).where(keys.c.name == name)) is not None:
                raise ServeError(f'There is a key "{name}" already. Choose another name, or remove that one first.')
            connection.execute(insert(keys).values(**vars(key), hash=_hash(secret)))
        self._known = {}
        return key, secret

    def remove(self, name: str) -> None:
        """Revoke a key: a second later no server takes it. Raises ``ServeError`` if there is none of that name."""
        with self._database.write() as connection:
            if not connection.execute(delete(keys).where(keys.c.name == name)).rowcount:
                names = ", ".join(connection.scalars(select(keys.c.name))) or "none"
                raise ServeError(f'There is no key "{name}". Keys: {names}.')
        self._known = {}

    def all(self) -> list[Key]:
        """All keys, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(*_COLUMNS).order_by(keys.c.created_at)).all()
        return [Key(**row._mapping) for row in rows]

    def find(self, secret: str) -> Key | None:
        """Whose secret this is, as of at most a second ago. While there are no keys at all, everybody is ``NOBODY``."""
        hashed, now = _hash(secret), time.monotonic()
        if now > self._known_until:
            self._known, self._known_until = {}, now + _KNOWN_SECONDS
        known = self._known  # another thread may begin a new second
        if hashed not in known:
            with self._database.read() as connection:
                row = connection.execute(_FIND, {"hash": hashed}).one()
            if row.id is None and row.anyone:
                return None
            found = {name: value for name, value in row._mapping.items() if name != "anyone"}
            known[hashed] = NOBODY if row.id is None else Key(**found)
        return known[hashed]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
