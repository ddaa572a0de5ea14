"""What a batch of the transformer's training is: sizes mixed, tokens dropped or padded, conditions written in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openltx.data.latents import Example
from openltx.errors import RunError
from openltx.geometry import LatentShape, token_positions
from openltx.models.bundle import LTXModel
from openltx.models.presets import transformer_preset
from openltx.models.transformer import VideoTransformer, init_weights
from openltx.training.conditions import ConditionMix, Front, in_place_items
from openltx.training.config import OptimConfig
from openltx.training.flow import T_BINS, Clips, FlowConfig, FlowTask, by_time, noise_batch

SIZES = ((3, 2, 2), (2, 2, 3), (5, 1, 3))  # 12, 12 and 15 tokens
PLAIN = FlowConfig(tokens_per_batch=48, conditions=ConditionMix(first_frame=0.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(count: int = 18) -> list[Example]:
    g = generator()
    made = []
    for i in range(count):
        f, h, w = SIZES[i % 3]
        captions = tuple(torch.randn(4 + i % 3, 384, generator=g).bfloat16() for _ in range(2))
        made.append(
            Example(
                latents=torch.randn(16, f, h, w, generator=g).bfloat16(),
                captions=captions,
                fps=24.0,
                stills=torch.randn(2, 16, 1, h, w, generator=g).bfloat16(),
                still_frames=(8 * f - 8, 0),
                still_captions=captions[:1],
                ending=torch.randn(16, 1, h, w, generator=g).bfloat16(),
            )
        )
    return made


def task(model: LTXModel, config: FlowConfig = PLAIN, data: list[Example] | None = None) -> FlowTask:
    transformer = VideoTransformer(transformer_preset("tiny"))
    init_weights(transformer, generator())
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1, generator=generator(1))
    model = replace(model, transformer=transformer)
    return FlowTask(model, examples() if data is None else data, config, OptimConfig(lr=1e-3), [])


def clips(shape: tuple[int, int, int], b: int = 2, front: Front | None = None, seed: int = 0) -> Clips:
    return Clips(torch.randn(b, 16, *shape, generator=generator(seed)), 24.0, front)


def test_sizes_share_a_batch_of_one_token_count_and_some_of_the_larger_are_dropped() -> None:
    groups = (clips((3, 2, 2)), clips((5, 1, 3), seed=1))
    noised = noise_batch(groups, PLAIN, generator(), causal=True)
    assert noised.tokens.shape == (4, 12, 16)
    assert noised.real is None
    assert noised.counted.all()
    whole = {tuple(place) for place in token_positions(LatentShape(frames=5, height=1, width=3), 24.0).T.tolist()}
    kept = [[tuple(place) for place in sample.T.tolist()] for sample in noised.positions[2:]]
    assert all(len(set(sample)) == 12 and set(sample) < whole for sample in kept)
    assert kept[0] != kept[1]  # each sample loses others


def test_what_is_left_of_a_dropped_sample_is_as_it_was() -> None:
    alone = noise_batch([clips((5, 1, 3))], PLAIN, generator(3), causal=True)
    mixed = noise_batch([clips((5, 1, 3)), clips((3, 2, 2))], PLAIN, generator(3), causal=True)
    for sample in range(2):
        places = [tuple(place) for place in alone.positions[sample].T.tolist()]
        chosen = [places.index(tuple(place)) for place in mixed.positions[sample].T.tolist()]
        for name in ("tokens", "times", "target"):
            assert getattr(mixed, name)[sample].equal(getattr(alone, name)[sample][chosen])


def test_padding_is_seen_by_no_token_and_is_out_of_the_loss(tiny_model: LTXModel) -> None:
    made = task(tiny_model, replace(PLAIN, mixing="pad"))
    text, mask = torch.randn(4, 5, 384, generator=generator()), torch.ones(4, 5, dtype=torch.bool)
    noised = noise_batch([clips((3, 2, 2)), clips((5, 1, 3))], made.config, generator(), causal=True)
    assert noised.tokens.shape[1] == 15
    assert noised.real is not None
    assert noised.real.sum(1).tolist() == noised.counted.sum(1).tolist() == [12, 12, 15, 15]
    noised.tokens[:2, 12:] = 100.0
    transformer = made.model.transformer
    padded = transformer(noised.tokens, noised.times, noised.positions, text, mask, token_mask=noised.real)
    short = transformer(noised.tokens[:2, :12], noised.times[:2, :12], noised.positions[:2, :, :12], text[:2], mask[:2])
    torch.testing.assert_close(padded[:2, :12], short, rtol=1e-4, atol=1e-5)


def test_a_whole_run_mixes_sizes_stills_and_conditions(tiny_model: LTXModel) -> None:
    mix = ConditionMix(first_frame=0.2, opening=0.2, inpainting=0.2, keyframes=0.4, ending=0.3)
    made = task(tiny_model, replace(PLAIN, conditions=mix, image_share=0.3))
    fronts, frames = set(), set()
    for step in range(24):
        batch = made.batch(step, 0)
        fronts |= {None if g.front is None else g.front.frame for g in batch.groups}
        frames |= {g.shape.frames for g in batch.groups}
        loss, logs = made.loss(batch, step, generator(step))
        loss.backward()
        samples = sum(len(g.latents) for g in batch.groups)
        assert sum(float(v) for name, v in logs.items() if name.startswith("count")) == samples == len(batch.text)
    assert frames == {1, 2, 3, 5}
    assert fronts >= {None, 8, 16, 32}  # stills at the last frames 8, 16, 32; endings of one latent frame there too


def test_the_loss_by_bin_of_t_adds_up() -> None:
    t, losses = torch.tensor([0.0, 0.05, 0.3, 0.95, 1.0]), torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])
    logs = by_time(losses, t)
    assert [float(logs[f"count_t{low:.2f}"]) for low in T_BINS[:-1]] == [2, 0, 1, 0, 0, 2]
    assert float(logs["loss_t0.00"]) == 2
    assert float(logs["loss_t0.90"]) == 8
    assert "loss_t0.10" not in logs


def test_each_sample_has_at_most_one_condition_in_place() -> None:
    shape = LatentShape(frames=5, height=2, width=3)
    latents = torch.randn(400, 16, 5, 2, 3, generator=generator())
    items = in_place_items(latents, shape, ConditionMix(first_frame=0.3, opening=0.2, inpainting=0.2), generator(1))
    kept, opening, first = (torch.as_tensor(item.strength) for item in items)
    given = torch.stack([kept.flatten(1).amax(1) > 0, opening > 0, first > 0])
    assert given.sum(0).max() == 1
    torch.testing.assert_close(given.float().mean(1), torch.tensor([0.2, 0.2, 0.3]), rtol=0, atol=0.08)
    chosen = kept[given[0]]
    assert ((chosen == 0) | (chosen >= 0.95)).all()
    assert ((chosen == 0).flatten(1).sum(1) > 0).all()  # something is left to make


def test_latents_without_stills_or_endings_are_refused_where_they_are_needed(tiny_model: LTXModel) -> None:
    bare = [replace(example, stills=None, ending=None) for example in examples()]
    for config, flag in (
        (replace(PLAIN, image_share=0.1), "--stills"),
        (replace(PLAIN, conditions=ConditionMix(keyframes=0.1)), "--stills"),
        (replace(PLAIN, conditions=ConditionMix(ending=0.1)), "--ending"),
    ):
        with pytest.raises(RunError, match=flag):
            task(tiny_model, config, bare)


def test_with_equal_counts_only_nothing_is_dropped(tiny_model: LTXModel, tmp_path: Path) -> None:
    made = task(tiny_model, replace(PLAIN, mixing="none"))
    for step in range(12):
        batch = made.batch(step, 0)
        assert len({g.shape.num_tokens for g in batch.groups}) == 1
