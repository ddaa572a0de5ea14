"""The first-block cache, by its formula."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from openltx.models.presets import transformer_preset
from openltx.models.step_cache import FirstBlockCache
from openltx.models.transformer import Context, Skip, VideoTransformer


@pytest.fixture(scope="module")
def transformer() -> VideoTransformer:
    torch.manual_seed(0)
    model = VideoTransformer(transformer_preset("tiny")).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("scale_shift_table"):
            tensor.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def context(transformer: VideoTransformer) -> Context:
    text, positions = torch.randn(1, 3, 384), torch.rand(1, 3, 6)
    with torch.no_grad():
        return transformer.prepare(positions, text, torch.ones(1, 3, dtype=torch.bool))


def residuals(transformer: VideoTransformer, context: Context, tokens: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """a and r of a whole step, seen from outside."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
        for block in transformer.transformer_blocks
    ]
    transformer.step(tokens, torch.tensor([[t]]), None, context)
    for hook in hooks:
        hook.remove()
    return seen[1] - seen[0], seen[-1] - seen[1]


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 100.0])
@torch.no_grad()
def test_blocks_are_left_out_where_the_first_one_changes_little(
    transformer: VideoTransformer, context: Context, threshold: float
) -> None:
    start, direction = torch.randn(1, 6, 16), torch.randn(1, 6, 16)
    path: Sequence[tuple[Tensor, float]] = [(start + s * direction, 1 - s) for s in (0.0, 0.02, 0.1, 0.12, 0.6)]
    cache, known, left_out = FirstBlockCache(threshold), None, 0
    for tokens, t in path:
        v = transformer.step(tokens, torch.tensor([[t]]), None, context, cache=cache)
        whole = transformer.step(tokens, torch.tensor([[t]]), None, context)
        added, rest = residuals(transformer, context, tokens, t)
        if known is not None and (added - known[0]).abs().mean() <= threshold * known[0].abs().mean():
            left_out += 1
            assert not torch.equal(v, whole)
        else:
            known = added, rest
            assert torch.equal(v, whole)
    assert cache.left_out == left_out
    assert left_out == {0.0: 0, 100.0: 4}.get(threshold, left_out)


@torch.no_grad()
def test_a_step_that_is_shortened_adds_the_former_rest(transformer: VideoTransformer, context: Context) -> None:
    tokens, later = torch.randn(2, 1, 6, 16).unbind()
    cache, t = FirstBlockCache(100.0), torch.tensor([[0.5]])
    transformer.step(tokens, t, None, context, cache=cache)
    _, rest = residuals(transformer, context, tokens, 0.5)
    seen: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda *a: seen.append(a[2])) for block in transformer.transformer_blocks]
    v = transformer.step(later, t, None, context, cache=cache)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 1
    last = transformer.transformer_blocks[-1].register_forward_hook(lambda *_: seen[0] + rest)
    torch.testing.assert_close(v, transformer.step(later, t, None, context))
    last.remove()


@torch.no_grad()
def test_a_first_block_that_is_skipped_for_guidance_is_not_asked(
    transformer: VideoTransformer, context: Context
) -> None:
    tokens, t, skip = torch.randn(1, 6, 16), torch.tensor([[0.5]]), Skip((0,), "transformer_block")
    cache = FirstBlockCache(100.0)
    expected = transformer.step(tokens, t, None, context, skip)
    for _ in range(2):
        assert torch.equal(transformer.step(tokens, t, None, context, skip, cache), expected)
    assert cache.left_out == 0
