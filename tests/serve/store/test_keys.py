"""Keys: shown once, stored as hashes, revoked at once."""

from pathlib import Path

import pytest

from openltx.errors import ServeError
from openltx.serve.settings import ServerSettings
from openltx.serve.store.database import Database
from openltx.serve.store.keys import NOBODY, Keys


def test_without_keys_everybody_is_nobody_and_with_one_nobody_is_let_in(database: Database) -> None:
    keys = Keys(database)
    assert keys.find("") is NOBODY
    assert keys.find("anything") is NOBODY
    key, secret = keys.add("ann", priority=3)
    assert keys.find(secret) == key
    assert key.priority == 3
    assert keys.find("") is None
    assert keys.find(secret[:-1]) is None
    assert keys.find("\udcff") is None


def test_the_secret_is_nowhere_on_disk(database: Database, settings: ServerSettings) -> None:
    _, secret = Keys(database).add("ann")
    stored = b"".join(path.read_bytes() for path in Path(settings.data).iterdir())
    assert b"ann" in stored
    assert secret.encode() not in stored


def test_a_removed_key_opens_nothing_and_its_name_is_free_again(database: Database) -> None:
    keys = Keys(database)
    old, secret = keys.add("ann")
    keys.add("bob")
    keys.remove("ann")
    assert keys.find(secret) is None
    new, _ = keys.add("ann")
    assert new.id != old.id  # and so sees none of the old one's jobs
    assert [key.name for key in keys.all()] == ["bob", "ann"]


def test_names_are_given_once_and_mistakes_named(database: Database) -> None:
    keys = Keys(database)
    keys.add("ann")
    with pytest.raises(ServeError, match="already"):
        keys.add("ann")
    with pytest.raises(ServeError, match="no name"):
        keys.add(" ")
    with pytest.raises(ServeError, match="Keys: ann"):
        keys.remove("bob")
