"""Hashes of large files are remembered for as long as the file stays what it is."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from openltx.checkpoints.fingerprint import known_sha256


def test_a_large_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "cache"))
    home = sys.modules[known_sha256.__module__]  # the package has a function of this name
    monkeypatch.setattr(home, "REMEMBERED_FROM", 3)
    hashed: list[Path] = []
    hash_of = home.file_sha256
    monkeypatch.setattr(home, "file_sha256", lambda path: hashed.append(path) or hash_of(path))
    path = tmp_path / "weights"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        os.utime(path, ns=(0, len(hashed)))
        assert [known_sha256(path) for _ in range(2)] == [hashlib.sha256(content).hexdigest()] * 2
    assert len(hashed) == 2
    (tmp_path / "cache" / "sha256.json").write_text("not json")
    assert known_sha256(path) == hashlib.sha256(b"two").hexdigest()
    assert len(hashed) == 3


def test_small_files_leave_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(b"small")
    assert known_sha256(path) == hashlib.sha256(b"small").hexdigest()
    assert not (tmp_path / "cache").exists()
