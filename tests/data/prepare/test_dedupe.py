"""Near-duplicates and buckets: decided by numbers alone."""

import numpy as np
import pytest

from openltx.data.prepare.buckets import choose_bucket
from openltx.data.prepare.dedupe import near_duplicates
from openltx.data.prepare.records import Record
from openltx.data.prepare.settings import Bucket, BucketSettings

RNG = np.random.default_rng(0)


def record(
    name: str, hashes: list[int], *, size: tuple[int, int] = (720, 1280), blur: float = 0.3, **changes
) -> Record:
    values = {
        "id": name, "source": name, "sha256": name, "shot": 0, "first": 0, "frames": 60, "picks": None, "pts": 0,
        "fps": 24.0, "height": size[0], "width": size[1], "split": "train", "credit": None, "caption": "",
    }  # fmt: skip
    crop = {"top": 0, "bottom": 0, "left": 0, "right": 0, "left_over": 1.0}
    measures = {
        "crop": crop,
        "sharpness": {"blur": blur, "lightness": 90.0},
        "fingerprint": {"hashes": [f"{value:016x}" for value in hashes]},
    }
    return Record(**values | {"measures": measures} | changes)


def random_hashes() -> list[int]:
    return [int(value) for value in RNG.integers(0, 2**64, 5, np.uint64)]


def with_flipped_bits(hashes: list[int], count: int) -> list[int]:
    flipped = list(hashes)
    for place in RNG.permutation(320)[:count]:
        flipped[place // 64] ^= 1 << int(place % 64)
    return flipped


def test_of_clips_that_look_alike_the_largest_and_sharpest_is_kept() -> None:
    one, other = random_hashes(), random_hashes()
    records = [
        record("a", with_flipped_bits(one, 10), size=(360, 640)),
        record("b", one),
        record("c", with_flipped_bits(one, 20), blur=0.5),
        record("d", other),
        record("e", with_flipped_bits(one, 60)),
    ]
    found = near_duplicates(records, 0.1)
    assert {name: of for name, (of, _) in found.items()} == {"a": "b", "c": "b"}
    assert found["a"][1] == pytest.approx(10 / 320, abs=1e-4)
    assert near_duplicates(records[::-1], 0.1) == found


def test_pieces_of_one_shot_are_not_copies_of_each_other() -> None:
    hashes = random_hashes()
    pieces = [record("a", hashes, sha256="x", shot=3), record("b", hashes, sha256="x", shot=3)]
    assert near_duplicates(pieces, 0.1) == {}
    assert set(near_duplicates([*pieces, record("c", hashes, sha256="y")], 0.1)) == {"c"}


def test_a_clip_goes_where_most_of_it_is_seen() -> None:
    settings = BucketSettings(sizes=("768x512x49", "512x768x49", "768x448x25", "768x448x97"))
    assert choose_bucket(record("a", []), settings) == Bucket(768, 448, 25)
    assert choose_bucket(record("a", [], frames=100), settings) == Bucket(768, 448, 97)
    assert choose_bucket(record("a", [], size=(1280, 853)), settings) == Bucket(512, 768, 49)
    assert "too short" in str(choose_bucket(record("a", [], frames=20), settings))
    assert "too small" in str(choose_bucket(record("a", [], size=(360, 640)), settings))
    assert "of no bucket's shape" in str(choose_bucket(record("a", [], size=(3000, 900)), settings))
