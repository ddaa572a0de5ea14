"""Laws of the transformer; its numbers are compared with another implementation in tests/parity."""

import math
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from openltx.checkpoints.config import official_transformer
from openltx.errors import CheckpointError
from openltx.geometry import LatentShape, token_positions
from openltx.kernels.fused import rotate
from openltx.models.presets import transformer_preset
from openltx.models.transformer import (
    Skip,
    TransformerConfig,
    VideoTransformer,
    distinct_times,
    init_weights,
    rope_table,
)

CONFIG = TransformerConfig(num_layers=2, num_heads=4, head_dim=16, caption_channels=12, in_channels=8, out_channels=8)
SHAPE = LatentShape(frames=3, height=2, width=3)
N = SHAPE.num_tokens


def random_model(config: TransformerConfig = CONFIG) -> VideoTransformer:
    """A model in which every parameter matters."""
    model = VideoTransformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim == 2 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return model


def random_inputs(b: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """tokens, t, positions, text, text_mask (the last caption is shorter)."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(b, N, 8, generator=generator)
    text = torch.randn(b, 5, 12, generator=generator)
    mask = torch.ones(b, 5, dtype=torch.bool)
    mask[-1, 3:] = False
    positions = token_positions(SHAPE, fps=24.0).expand(b, -1, -1)
    return tokens, torch.rand(b, generator=generator), positions, text, mask


def test_default_rope_table_equals_the_published_formula() -> None:
    positions = token_positions(SHAPE, fps=24.0)[None]
    actual = rope_table(positions, CONFIG)[0].numpy()
    width, theta, limits = 64, 10000.0, (20.0, 2048.0, 2048.0)
    count = width // 6
    expected = np.ones((N, width // 2), dtype=np.complex128)
    for token in range(N):
        for k in range(count):
            for axis in range(3):
                p = float(positions[0, axis, token]) / limits[axis]
                angle = math.pi / 2 * theta ** (k / (count - 1)) * (2 * p - 1)
                expected[token, width // 2 - 3 * count + 3 * k + axis] = np.exp(1j * angle)
    # float32 angles reach 16000, where neighbouring numbers are 0.001 apart
    np.testing.assert_allclose(actual, expected, atol=4e-3)
    np.testing.assert_allclose(actual[:, :14], expected[:, :14], atol=1e-5)


def test_every_rope_option_gives_other_angles() -> None:
    positions = token_positions(SHAPE, fps=24.0)[None]
    tables = [
        rope_table(positions, replace(CONFIG, rope_spacing=spacing, rope_positions=kind))
        for spacing in ("exponential", "inverse")
        for kind in ("max_normalised", "fractional", "absolute")
    ]
    for i, first in enumerate(tables):
        for second in tables[:i]:
            assert (first - second).abs().max() > 0.1


def test_inverse_spacing_turns_the_slowest_pair_least() -> None:
    config = replace(CONFIG, rope_spacing="inverse")
    positions = torch.tensor([[[1.0], [0.0], [0.0]]]) * 20
    angles = rope_table(positions, config)[0, 0, 2::3].angle()
    expected = math.pi / 2 * 10000.0 ** (-6 * torch.arange(10) / 64)
    torch.testing.assert_close(angles, expected)


def test_fractional_positions_ignore_the_scale_of_the_clip() -> None:
    config = replace(CONFIG, rope_positions="fractional")
    positions = token_positions(SHAPE, fps=24.0)[None]
    scale = torch.tensor([4.0, 2.0, 0.5])[:, None]
    torch.testing.assert_close(rope_table(positions * scale, config), rope_table(positions, config))


def test_rotation_keeps_lengths_and_depends_only_on_distance() -> None:
    config = replace(CONFIG, theta=100.0)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 64, generator=generator)
    here, there, shift = torch.rand(3, 1, 3, 1, generator=generator)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (rotate(query, rope_table(a, config)) * rotate(key, rope_table(b, config))).sum()

    torch.testing.assert_close(rotate(query, rope_table(here, config)).norm(), query.norm())
    torch.testing.assert_close(product(here, there), product(here + shift, there + shift), rtol=1e-4, atol=1e-4)


def test_prepare_and_step_are_forward() -> None:
    model = random_model()
    tokens, t, positions, text, mask = random_inputs()
    whole = model(tokens, t, positions, text, mask)
    parts = model.step(tokens, t[:, None], None, model.prepare(positions, text, mask))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)


def test_time_per_token_equals_distinct_times_with_an_index() -> None:
    model = random_model()
    tokens, t, positions, text, mask = random_inputs()
    per_token = torch.where(torch.arange(N) < 6, 0.0, t[:, None])
    context = model.prepare(positions, text, mask)
    times, index = distinct_times(per_token)
    assert times.shape == (2, 2)
    indexed = model.step(tokens, times, index, context)
    torch.testing.assert_close(indexed, model.step(tokens, per_token, None, context))
    torch.testing.assert_close(indexed, model(tokens, per_token, positions, text, mask), rtol=0, atol=0)


def test_one_time_for_all_tokens_equals_a_time_per_sample() -> None:
    model = random_model()
    tokens, t, positions, text, mask = random_inputs()
    spread = model(tokens, t[:, None].expand(-1, N), positions, text, mask)
    torch.testing.assert_close(spread, model(tokens, t, positions, text, mask), rtol=0, atol=0)


def test_distinct_times_rebuild_the_times() -> None:
    t = torch.tensor([[0.5, 0.0, 0.5, 0.25], [1.0, 1.0, 1.0, 1.0], [0.1, 0.9, 0.1, 0.1]])
    values, index = distinct_times(t)
    assert values.shape == (3, 3)
    assert index is not None
    torch.testing.assert_close(values.gather(1, index), t, rtol=0, atol=0)


def test_a_batch_equals_its_singles() -> None:
    model = random_model()
    tokens, t, positions, text, mask = random_inputs()
    together = model(tokens, t, positions, text, mask)
    for i in range(2):
        one = slice(i, i + 1)
        single = model(tokens[one], t[one], positions[one].contiguous(), text[one], mask[one])
        torch.testing.assert_close(single, together[one])


def test_padded_text_equals_trimmed_text() -> None:
    model = random_model()
    tokens, t, positions, text, mask = (x[1:] for x in random_inputs())
    padded = model(tokens, t, positions, text, mask)
    trimmed = model(tokens, t, positions, text[:, :3], mask[:, :3])
    torch.testing.assert_close(padded, trimmed)
    assert (model(tokens, t, positions, text, torch.ones_like(mask)) - trimmed).abs().max() > 1e-3


def test_time_text_and_positions_all_matter() -> None:
    model = random_model()
    tokens, t, positions, text, mask = random_inputs()
    base = model(tokens, t, positions, text, mask)
    for other in (
        model(tokens, t * 0.5, positions, text, mask),
        model(tokens, t, positions * 1.5, text, mask),
        model(tokens, t, positions, text.flip(1), mask),
    ):
        assert (other - base).abs().max() > 1e-3


def test_order_of_tokens_does_not_matter_when_positions_follow() -> None:
    model = random_model()
    tokens, t, positions, text, mask = random_inputs()
    shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    actual = model(tokens[:, shuffled], t, positions[..., shuffled], text, mask)
    torch.testing.assert_close(actual, model(tokens, t, positions, text, mask)[:, shuffled], rtol=1e-4, atol=1e-5)


@pytest.fixture
def without_shape_checks():
    """The run-time shape checks of the test session cannot be traced."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@torch.no_grad()
@pytest.mark.usefixtures("without_shape_checks")
def test_step_compiles_as_one_graph() -> None:
    model = random_model()
    tokens, t, positions, text, mask = random_inputs()
    times, index = distinct_times(torch.where(torch.arange(N) < 6, 0.0, t[:, None]))
    compiled = torch.compile(model.step, fullgraph=True, backend="eager")
    for arguments in ((t[:, None], None), (times, index)):
        context = model.prepare(positions, text, mask)
        torch.testing.assert_close(compiled(tokens, *arguments, context), model.step(tokens, *arguments, context))
    torch._dynamo.reset()


def gradients(model: VideoTransformer, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    tokens, t, positions, text, mask = random_inputs()
    per_token = torch.where(torch.arange(N) < 6, 0.0, t[:, None])
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not None):
        velocity = model(tokens, per_token, positions, text, mask)
    assert velocity.dtype == torch.float32
    (velocity - tokens).square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model = random_model()
    expected = gradients(model)
    assert len(expected) == len(list(model.parameters()))
    model.checkpoint_blocks = True
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=0)


def test_training_under_bfloat16_autocast_gives_nearly_the_same_gradients() -> None:
    model = random_model()
    exact, rough = gradients(model), gradients(model, torch.bfloat16)
    a, b = (torch.cat([grads[name].flatten() for name in exact]) for grads in (exact, rough))
    assert torch.cosine_similarity(a, b, dim=0) > 0.99


@torch.no_grad()
def test_bfloat16_weights_give_nearly_the_same_velocity_in_the_dtype_of_the_tokens() -> None:
    model = random_model()
    inputs = random_inputs()
    exact = model(*inputs)
    rough = model.bfloat16()(*inputs)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.05


def test_fresh_weights_start_at_velocity_zero_and_learn() -> None:
    model = VideoTransformer(CONFIG)
    init_weights(model, torch.Generator().manual_seed(0))
    inputs = random_inputs()
    assert model(*inputs).abs().max() == 0
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (model(*inputs) - inputs[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_fresh_weights_follow_the_generator_alone() -> None:
    with torch.device("meta"):
        model = VideoTransformer(CONFIG)
    states = []
    for _ in range(2):
        model = model.to_empty(device="cpu")
        init_weights(model, torch.Generator().manual_seed(5))
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    for name, tensor in states[0].items():
        assert tensor.isfinite().all()
        assert tensor.equal(states[1][name])


def test_parameters_are_named_and_shaped_as_in_the_releases() -> None:
    with torch.device("meta"):
        model = VideoTransformer(TransformerConfig(num_layers=28, num_heads=32, head_dim=64, caption_channels=4096))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert len(shapes) == 715
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_923_385_472
    assert shapes["adaln_single.emb.timestep_embedder.linear_1.weight"] == (2048, 256)
    assert shapes["transformer_blocks.27.attn2.to_out.0.bias"] == (2048,)
    assert shapes["transformer_blocks.0.ff.net.2.weight"] == (2048, 8192)
    assert shapes["transformer_blocks.0.scale_shift_table"] == (6, 2048)


def test_without_the_attention_of_a_block_a_token_sees_only_itself() -> None:
    model, (tokens, t, positions, text, mask) = random_model(), random_inputs()
    changed = tokens.clone()
    changed[:, 3] += 1
    for mode in ("attention_values", "attention_skip"):
        skip = Skip((0, 1), mode)
        before, after = (model(x, t, positions, text, mask, skip=skip) for x in (tokens, changed))
        others = [i for i in range(N) if i != 3]
        torch.testing.assert_close(before[:, others], after[:, others])
        assert not torch.allclose(before[:, 3], after[:, 3])


def test_left_out_attention_gives_back_its_values_or_its_input() -> None:
    block = random_model().transformer_blocks[0].attn1
    h = torch.randn(2, N, 64, generator=torch.Generator().manual_seed(3))
    rotation = torch.ones(1, N, 32, dtype=torch.complex64)
    torch.testing.assert_close(block.among(h, rotation, "attention_values"), block.to_out(block.to_v(h)))
    torch.testing.assert_close(block.among(h, rotation, "attention_skip"), block.to_out(h))
    assert not torch.allclose(block.among(h, rotation), block.among(h, rotation, "attention_values"))


def test_a_left_out_block_is_as_if_it_were_not_there() -> None:
    model, inputs = random_model(), random_inputs()
    skipped = model(*inputs, skip=Skip((1,), "transformer_block"))
    shorter = random_model(replace(CONFIG, num_layers=1))
    shorter.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("transformer_blocks.1")})
    torch.testing.assert_close(skipped, shorter(*inputs))


def test_the_residual_mode_and_blocks_outside_change_nothing() -> None:
    model, inputs = random_model(), random_inputs()
    plain = model(*inputs)
    assert model(*inputs, skip=Skip((0, 1), "residual")).equal(plain)
    assert model(*inputs, skip=Skip((42,))).equal(plain)


def variant(**changes: object) -> VideoTransformer:
    model = VideoTransformer(replace(transformer_preset("tiny"), **changes))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.eval()


def inputs_of_variant(n: int = 6, length: int = 5) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    tokens, text = torch.randn(2, n, 16, generator=g), torch.randn(2, length, 384, generator=g)
    t = torch.rand(2, n, generator=g)
    return tokens, t, torch.rand(2, 3, n, generator=g), text, torch.ones(2, length, dtype=torch.bool)


@pytest.mark.parametrize("changes", [{}, {"text_attention": "joint"}, {"qk_norm": "none"}])
@torch.no_grad()
def test_tokens_and_captions_that_are_masked_change_nothing(changes: dict[str, str]) -> None:
    model = variant(**changes)
    tokens, t, positions, text, mask = inputs_of_variant()
    mask[:, 3:] = False
    real = torch.ones(2, 6, dtype=torch.bool)
    real[:, 4:] = False
    t[:, 4:] = 0.0  # as padding has: caption tokens of one sequence take the largest time
    full = model(tokens, t, positions, text, mask, token_mask=real)
    text[:, 3:], tokens[:, 4:] = 7.0, -7.0
    torch.testing.assert_close(model(tokens, t, positions, text, mask, token_mask=real)[:, :4], full[:, :4])
    short = model(tokens[:, :4], t[:, :4], positions[:, :, :4], text[:, :3], mask[:, :3])
    torch.testing.assert_close(short, full[:, :4], rtol=1e-4, atol=1e-5)
    text[:, 0] += 1.0
    assert (model(tokens, t, positions, text, mask, token_mask=real)[:, :4] - full[:, :4]).abs().max() > 1e-3


def test_variants_have_no_weights_that_they_do_not_use_and_cannot_be_exported() -> None:
    joint, plain = variant(text_attention="joint"), variant(qk_norm="none")
    assert not any("attn2" in name for name in joint.state_dict())
    assert not any("_norm" in name for name in plain.state_dict())
    for model in (joint, plain):
        with pytest.raises(CheckpointError, match="experiments only"):
            official_transformer(model.config)
