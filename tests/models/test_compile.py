"""Ready for accelerators without having one: the denoising step is one graph and never looks at a tensor's content."""

import jaxtyping
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from openltx.flow.guidance import Guidance, guide
from openltx.flow.path import TokenState
from openltx.flow.solvers import euler
from openltx.models.lora import LoRA, LowRank, apply, linear_shapes
from openltx.models.transformer import Skip, TransformerConfig, VideoTransformer, distinct_times
from openltx.pipelines.residency import compile_blocks

CONFIG = TransformerConfig(num_layers=2, num_heads=2, head_dim=32, caption_channels=16, in_channels=8, out_channels=8)
N = 24


@pytest.fixture(autouse=True)
def without_shape_checks():
    """The shape-checking hook of the tests cannot be traced."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def step():
    """A model, and arguments of ``step`` for a conditioned video: two times, an index, a padded caption."""
    torch.manual_seed(0)
    model = VideoTransformer(CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    with torch.no_grad():
        context = model.prepare(torch.rand(2, 3, N), torch.randn(2, 5, 16), mask)
    index = (torch.arange(N) >= 4).long().expand(2, N)
    return model, (torch.randn(2, N, 8), torch.tensor([[0.0, 0.7], [0.0, 0.7]]), index, context)


@pytest.mark.parametrize("conditioned", [True, False])
@torch.no_grad()
def test_a_denoising_step_is_one_graph(step, conditioned: bool) -> None:
    model, (tokens, t, index, context) = step
    arguments = (tokens, t, index, context) if conditioned else (tokens, t[:, 1:], None, context)
    expected = model.step(*arguments)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model.step)(*arguments)
    assert explained.graph_break_count == 0
    assert explained.graph_count == 1
    torch._dynamo.reset()
    compiled = torch.compile(model.step, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_compiling_block_by_block_in_place_keeps_the_names(step) -> None:
    model, arguments = step
    names, expected = list(model.state_dict()), model.step(*arguments)
    torch._dynamo.reset()
    compile_blocks(model, backend="aot_eager")
    torch.testing.assert_close(model.step(*arguments), expected, rtol=1e-4, atol=1e-4)
    assert list(model.state_dict()) == names


@torch.no_grad()
def test_applied_loras_are_compiled_with_their_block(step) -> None:
    model, arguments = step
    layers = {
        name: LowRank(torch.randn(2, c) * 0.1, torch.randn(d, 2) * 0.1) for name, (d, c) in linear_shapes(model).items()
    }
    plain = model.step(*arguments)
    apply(model, [(LoRA(name="a.safetensors", layers=layers), 0.7)])
    expected = model.step(*arguments)
    torch._dynamo.reset()
    compile_blocks(model, backend="aot_eager")
    torch.testing.assert_close(model.step(*arguments), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, expected, rtol=1e-2)


def test_the_denoising_loop_reads_nothing_back_from_the_device() -> None:
    """On fake tensors, which have no content: ``.item()``, ``bool(tensor)`` or a data-dependent shape would raise."""
    torch.manual_seed(0)
    with FakeTensorMode(), torch.no_grad():
        model = VideoTransformer(CONFIG).eval()
        tokens, clean = torch.randn(1, N, 8), torch.randn(1, N, 8)
        state = TokenState(
            tokens=tokens, clean=clean, strength=torch.zeros(1, N), positions=torch.rand(1, 3, N), num_targets=N
        )
        index = torch.zeros(1, N, dtype=torch.long)
        context = fake_context(model)

        def velocity(state: TokenState, t: float) -> torch.Tensor:
            times = torch.zeros(1, 2).clamp(max=t)
            guidance = Guidance(cfg=3.0, cfg_star=True, stg=1.0, skip_blocks=(1,), rescale=0.7)
            positive, negative = (model.step(state.tokens, times, index, context) for _ in range(2))
            weak = model.step(state.tokens, times, index, context, Skip(guidance.skip_blocks))
            return guide(positive, negative, weak, guidance)

        noise = {"renew": torch.randn_like, "jitter": (0.15, torch.randn_like)}
        *_, last = euler(velocity, state, Times((1.0, 0.75, 0.5, 0.25)), stop_at=0.05, **noise)
        assert last.state.tokens.shape == (1, N, 8)


class Times(tuple):
    """The schedule lies on the host; as a tensor it would be fake here."""

    def tolist(self) -> list[float]:
        return list(self)


def fake_context(model: VideoTransformer):
    """A context whose content was looked at before the loop, as ``prepare`` does."""
    from openltx.models.transformer import Context

    d = CONFIG.width
    keys = tuple(torch.randn(1, 5, d) for _ in range(CONFIG.num_layers))
    return Context(torch.randn(1, N, d // 2, dtype=torch.complex64), keys, keys, torch.zeros(1, 5))


def test_fake_tensors_do_raise_on_a_host_read() -> None:
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        distinct_times(torch.rand(1, N))
