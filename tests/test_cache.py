"""The tensor cache: what is kept, for how long, and what cannot go wrong."""

import os
from pathlib import Path

import pytest
import torch

from openltx.cache import TensorCache


def test_what_is_written_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "deep" / "cache")
    assert cache.read("a") is None
    for dtype in (torch.float32, torch.bfloat16):
        cache.write("a", torch.randn(3, 4).to(dtype))
        found = cache.read("a")
        assert found is not None
        assert found.dtype == dtype
        cache.write("b", found.T)
        assert torch.equal(cache.read("b").T, found)  # pyright: ignore[reportOptionalMemberAccess]
    assert {path.name for path in cache.folder.iterdir()} == {"a.safetensors", "b.safetensors"}


def test_beyond_the_limit_the_longest_unused_goes(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path, limit=1000)
    for second, key in enumerate("abc"):
        cache.write(key, torch.zeros(50))  # 200 bytes and a header
        os.utime(tmp_path / f"{key}.safetensors", (second, second))
    assert cache.read("a") is not None  # and so it is in use
    cache.write("d", torch.zeros(50))
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "c", "d"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    TensorCache(tmp_path / "cache").write("a", torch.zeros(1))
    assert TensorCache(tmp_path / "cache").read("a") is None


def test_a_file_in_the_folders_place_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    TensorCache(tmp_path / "cache").write("a", torch.zeros(1))
    assert TensorCache(tmp_path / "cache").read("a") is None
