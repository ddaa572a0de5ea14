"""The order of batches: families of sizes, epochs, streams, exact resume."""

from collections import Counter

import pytest

from openltx.data.buckets import BatchPlan, families_of
from openltx.data.latents import Entry

SIZES = ((7, 4, 4), (5, 4, 6), (13, 3, 3), (13, 4, 4))  # 112, 120, 117 and 208 tokens


def entries(count: int = 96, shards: int = 12) -> list[Entry]:
    return [
        Entry(shard=i * shards // count, shape=SIZES[i % 4], fps=24.0, stills=2, has_ending=False) for i in range(count)
    ]


def plan(streams: int = 2, image_share: float = 0.0, seed: int = 0, count: int = 96) -> BatchPlan:
    return BatchPlan(
        entries(count),
        tokens_per_batch=450,
        largest_drop=0.2,
        image_share=image_share,
        streams=streams,
        seed=seed,
    )


def test_sizes_within_a_fifth_are_a_family_and_images_stay_by_themselves() -> None:
    families = families_of({*SIZES, (6, 4, 4), (1, 4, 4), (1, 10, 10)}, 0.2)
    assert [family.tokens for family in families] == [16, 100, 96, 208]
    assert set(families[2].shapes) == {(6, 4, 4), (7, 4, 4), (5, 4, 6), (13, 3, 3)}
    assert families[1].shapes == ((1, 10, 10),)
    assert all(len(family.shapes) == 1 for family in families_of({(6, 4, 4), (7, 4, 4)}, 0.0))


def test_a_batch_holds_one_family_and_as_many_clips_as_the_tokens_allow() -> None:
    made = plan()
    for step in range(20):
        picks = made.batch(step, step % 2)
        (family,) = {made.family_of[made.entries[pick.example].shape] for pick in picks}
        assert len(picks) == {112: 4, 208: 2}[family.tokens]


def test_streams_read_shards_of_their_own_and_an_epoch_has_every_example() -> None:
    made = plan()
    seen, shards = Counter[int](), []
    for stream in range(2):
        batches = made._epoch(0, stream)
        examples = [pick.example for batch in batches for pick in batch]
        seen.update(set(examples))
        shards.append({made.entries[i].shard for i in examples})
        assert len(examples) - len(set(examples)) <= 4  # what fills up the last batches
    assert seen == Counter(range(96))
    assert not shards[0] & shards[1]


def test_another_epoch_and_another_seed_have_another_order() -> None:
    first, second = ([plan().batch(step, 0) for step in steps] for steps in (range(13), range(13, 26)))
    other = [plan(seed=1).batch(step, 0) for step in range(13)]
    assert first not in (second, other)


def test_a_plan_begun_at_a_later_step_goes_on_at_the_exact_example() -> None:
    whole = plan(image_share=0.2)
    order = [whole.batch(step, 1) for step in range(80)]
    assert plan(image_share=0.2).batch(79, 1) == order[79]
    assert plan(image_share=0.2).batch(33, 1) == order[33]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_stills_have_their_share_of_the_tokens(share: float) -> None:
    made = plan(image_share=share)
    tokens = Counter[bool]()
    for batch in made._epoch(0, 0) + made._epoch(1, 0) + made._epoch(0, 1):
        for example, still in batch:
            f, h, w = made.entries[example].shape
            tokens[still is not None] += (1 if still is not None else f) * h * w
    assert tokens[True] / tokens.total() == pytest.approx(share, abs=0.08)


def test_more_streams_than_examples_still_have_batches() -> None:
    made = plan(streams=6, count=4)
    assert all(made.batch(step, micro) for step in range(5) for micro in range(6))
