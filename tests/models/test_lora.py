"""The change of a LoRA is its formula, the same merged and applied, and can be undone to the last bit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from openltx.errors import CheckpointError, RequestError
from openltx.models.int8 import quantize
from openltx.models.lora import LoRA, LowRank, Weighted, apply, is_mergeable, linear_shapes, merge, require_fit
from openltx.models.transformer import TransformerConfig, VideoTransformer

CONFIG = TransformerConfig(num_layers=2, num_heads=2, head_dim=16, caption_channels=12, in_channels=8, out_channels=8)


@pytest.fixture
def transformer() -> VideoTransformer:
    return random_transformer()


@pytest.fixture
def loras(transformer: VideoTransformer) -> Weighted:
    """One LoRA on every linear layer, one on the attention only, turned around."""
    shapes = linear_shapes(transformer)
    everything = random_lora(shapes, rank=4, seed=1, scale=0.5)
    attention = random_lora({name: shapes[name] for name in shapes if ".attn" in name}, rank=2, seed=2)
    return [(everything, 0.8), (attention, -1.5)]


def random_transformer(config: TransformerConfig = CONFIG) -> VideoTransformer:
    generator = torch.Generator().manual_seed(0)
    transformer = VideoTransformer(config).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
    return transformer


def random_lora(shapes: dict[str, tuple[int, ...]], rank: int, seed: int = 0, scale: float = 1.0) -> LoRA:
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * columns**-0.5

    layers = {name: LowRank(draw(rank, c), draw(d, rank), scale) for name, (d, c) in shapes.items()}
    return LoRA(name=f"{seed}.safetensors", layers=layers)


@torch.no_grad()
def velocity(transformer: VideoTransformer) -> Tensor:
    g = torch.Generator().manual_seed(3)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    return transformer(
        torch.randn(2, 30, 8, generator=g), torch.rand(2, 30, generator=g), torch.rand(2, 3, 30, generator=g),
        torch.randn(2, 5, 12, generator=g), mask,
    )  # fmt: skip


def by_formula(transformer: VideoTransformer, loras: Weighted) -> VideoTransformer:
    """A second transformer whose weights were changed in float64, layer by layer."""
    state = {name: tensor.double() for name, tensor in transformer.state_dict().items()}
    for lora, strength in loras:
        for name, change in lora.layers.items():
            for r in range(len(change.down)):
                outer = torch.outer(change.up[:, r].double(), change.down[r].double())
                state[f"{name}.weight"] = state[f"{name}.weight"] + strength * change.scale * outer
    other = VideoTransformer(transformer.config).eval()
    other.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return other


def relative(got: Tensor, exact: Tensor) -> float:
    return float((got - exact).norm() / exact.norm())


@pytest.mark.parametrize("put_on", [merge, apply])
def test_a_changed_transformer_is_that_of_the_formula(transformer, loras, put_on: Callable) -> None:
    expected, before = velocity(by_formula(transformer, loras)), velocity(transformer)
    put_on(transformer, loras)
    assert relative(velocity(transformer), expected) < 2e-6
    assert relative(before, expected) > 0.1


@pytest.mark.parametrize("put_on", [merge, apply])
def test_undoing_gives_back_every_bit(transformer, loras, put_on: Callable) -> None:
    transformer.bfloat16()
    state = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    before = velocity(transformer)
    undo = put_on(transformer, loras)
    assert list(transformer.state_dict()) == list(state)
    assert not torch.equal(velocity(transformer), before)
    undo()
    assert all(torch.equal(tensor, state[name]) for name, tensor in transformer.state_dict().items())
    assert torch.equal(velocity(transformer), before)


def test_merging_leaves_the_old_weights_and_untouched_layers_where_they_are(transformer, loras) -> None:
    pointers = {name: tensor.data_ptr() for name, tensor in transformer.state_dict().items()}
    undo = merge(transformer, loras[1:])
    moved = {name for name, tensor in transformer.state_dict().items() if tensor.data_ptr() != pointers[name]}
    assert moved == {f"{name}.weight" for name in loras[1][0].layers}
    undo()
    assert {name: tensor.data_ptr() for name, tensor in transformer.state_dict().items()} == pointers


def test_applying_touches_no_weight(transformer, loras) -> None:
    pointers = {name: tensor.data_ptr() for name, tensor in transformer.state_dict().items()}
    apply(transformer, loras)
    assert {name: tensor.data_ptr() for name, tensor in transformer.state_dict().items()} == pointers


@pytest.mark.parametrize("put_on", [merge, apply])
def test_strength_zero_changes_no_bit(transformer, loras, put_on: Callable) -> None:
    before = velocity(transformer)
    put_on(transformer, [(lora, 0.0) for lora, _ in loras])
    assert torch.equal(velocity(transformer), before)


@pytest.mark.parametrize("put_on", [merge, apply])
def test_opposite_strengths_cancel(transformer, loras, put_on: Callable) -> None:
    before = velocity(transformer)
    put_on(transformer, [(loras[0][0], 1.0), (loras[0][0], -1.0)])
    assert relative(velocity(transformer), before) < 1e-6


def test_in_bfloat16_both_are_close_to_the_formula(loras) -> None:
    expected = velocity(by_formula(random_transformer(), loras))
    for put_on in (merge, apply):
        transformer = random_transformer().bfloat16()
        put_on(transformer, loras)
        assert relative(velocity(transformer), expected) < 0.03


def test_int8_layers_carry_loras_beside_them(transformer, loras) -> None:
    expected = velocity(by_formula(transformer, loras))
    quantize(transformer)
    plain = velocity(transformer)
    undo = apply(transformer, loras)
    assert relative(velocity(transformer), expected) < 0.03
    undo()
    assert torch.equal(velocity(transformer), plain)


def test_merging_before_quantising_is_the_same_network(transformer, loras) -> None:
    expected = velocity(by_formula(transformer, loras))
    merge(transformer, loras)
    assert is_mergeable(transformer)
    quantize(transformer)
    assert not is_mergeable(transformer)
    assert relative(velocity(transformer), expected) < 0.03


def test_eight_bit_weights_are_not_merged_into(transformer, loras) -> None:
    quantize(transformer)
    before = velocity(transformer)
    with pytest.raises(RequestError, match="eight bits"):
        merge(transformer, loras)
    assert torch.equal(velocity(transformer), before)


def test_weights_that_come_and_go_carry_applied_loras_and_are_not_merged_into(transformer, loras) -> None:
    expected = velocity(by_formula(transformer, loras))
    state, absent = transformer.state_dict(), VideoTransformer(CONFIG).to("meta").state_dict()
    apply(transformer, loras)
    transformer.load_state_dict(absent, assign=True)
    assert not is_mergeable(transformer)
    with pytest.raises(RequestError, match="not in memory"):
        merge(transformer, loras)
    transformer.load_state_dict(state, assign=True)
    assert relative(velocity(transformer), expected) < 2e-6


def test_loras_are_applied_once_and_all_together(transformer, loras) -> None:
    undo = apply(transformer, loras[:1])
    with pytest.raises(RequestError, match="all of them at once"):
        apply(transformer, loras[1:])
    undo()
    apply(transformer, loras[1:])


def test_merged_and_applied_loras_add_up(transformer, loras) -> None:
    expected = velocity(by_formula(transformer, loras))
    merge(transformer, loras[:1])
    apply(transformer, loras[1:])
    assert relative(velocity(transformer), expected) < 2e-6


def test_a_lora_of_another_width_says_for_which_release_it_is(transformer) -> None:
    lora = random_lora({"transformer_blocks.0.attn1.to_q": (4096, 4096)}, rank=1)
    with pytest.raises(
        CheckpointError,
        match=r"0\.safetensors .*4096 wide, as the 13B releases are.*the model is blocks 0 to 1 of a transformer 32"
        r" wide.*attn1\.to_q is 4096 x 4096 instead of 32 x 32",
    ):
        merge(transformer, [(lora, 1.0)])


def test_a_lora_of_a_deeper_model_names_its_blocks(transformer) -> None:
    names = [f"transformer_blocks.{i}.attn1.to_q" for i in range(4)]
    lora = random_lora(dict.fromkeys(names, (32, 32)), rank=1)
    with pytest.raises(
        CheckpointError, match=r"blocks 0 to 3 .*2 of its layers are not in the model, such as .*2\.attn"
    ):
        apply(transformer, [(lora, 1.0)])


@pytest.mark.parametrize("name", ["double_blocks.0.img_attn.qkv", "transformer_blocks.0.attn1.q_norm"])
def test_a_layer_that_is_not_there_or_not_linear_is_named(transformer, name: str) -> None:
    lora = random_lora({name: (32, 32)}, rank=1)
    with pytest.raises(CheckpointError, match=f"not in the model, such as {name}"):
        require_fit(lora, linear_shapes(transformer))
