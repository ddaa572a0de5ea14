"""LoRA files of every spelling are read, and what is not exactly a LoRA for LTX-Video is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from openltx.checkpoints import load_lora
from openltx.checkpoints.header import read_header
from openltx.checkpoints.keys import TRANSFORMER_TABLE
from openltx.checkpoints.lora import describe_lora, is_lora
from openltx.errors import CheckpointError

LAYERS = {
    "transformer_blocks.0.attn1.to_q": (32, 32),
    "transformer_blocks.1.attn1.to_q": (32, 32),
    "transformer_blocks.1.attn2.to_out.0": (32, 32),
    "transformer_blocks.1.ff.net.0.proj": (128, 32),
    "patchify_proj": (32, 16),
    "adaln_single.linear": (192, 32),
}
RANK = 4
Tensors = dict[str, Tensor]


def tensors(prefix: str = "", down: str = "lora_A", up: str = "lora_B") -> Tensors:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, (d, c) in LAYERS.items():
        made[f"{prefix}{name}.{down}.weight"] = torch.randn(RANK, c, generator=generator)
        made[f"{prefix}{name}.{up}.weight"] = torch.randn(d, RANK, generator=generator)
    return made


def in_diffusers_spelling(made: Tensors) -> Tensors:
    return {f"transformer.{TRANSFORMER_TABLE.rename(name)}": tensor for name, tensor in made.items()}


def saved(path: Path, made: Tensors, metadata: dict[str, str] | None = None) -> Path:
    save_file(made, path, metadata=metadata)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "style.safetensors"


SPELLINGS: dict[str, tuple[Tensors, str]] = {
    "diffusers": (in_diffusers_spelling(tensors()), "diffusers"),
    "official trainer": (tensors("transformer."), "diffusers"),
    "comfyui": (tensors("diffusion_model."), "comfyui"),
    "comfyui, down and up": (tensors("diffusion_model.", "lora_down", "lora_up"), "comfyui"),
    "peft": (tensors("base_model.model."), "peft"),
    "plain": (tensors(), "plain"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_lora(path: Path, spelling: str) -> None:
    made, layout = SPELLINGS[spelling]
    lora, expected = load_lora(saved(path, made)), tensors()
    assert lora.layers.keys() == LAYERS.keys()
    for name, change in lora.layers.items():
        assert torch.equal(change.down, expected[f"{name}.lora_A.weight"])
        assert torch.equal(change.up, expected[f"{name}.lora_B.weight"])
        assert change.scale == 1.0
    assert lora.name == "style.safetensors"
    assert len(lora.fingerprint) == 16
    assert describe_lora(read_header(path)).layout == layout


def test_diffusers_names_differ_where_the_table_says_so() -> None:
    assert "transformer.proj_in.lora_A.weight" in SPELLINGS["diffusers"][0]
    assert "transformer.time_embed.linear.lora_B.weight" in SPELLINGS["diffusers"][0]


def test_alpha_over_rank_is_the_scale_of_the_layers_that_state_it(path: Path) -> None:
    made = tensors("diffusion_model.")
    made["diffusion_model.patchify_proj.alpha"] = torch.tensor(1.0, dtype=torch.bfloat16)
    made["diffusion_model.adaln_single.linear.alpha"] = torch.tensor([8.0])
    lora = load_lora(saved(path, made))
    scales = {name: change.scale for name, change in lora.layers.items()}
    assert (scales["patchify_proj"], scales["adaln_single.linear"]) == (1 / RANK, 8 / RANK)
    assert scales["transformer_blocks.0.attn1.to_q"] == 1.0


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_peft_s_settings_in_the_header_are_the_scale_where_no_tensor_is(path: Path, prefix: str) -> None:
    stated = {"r": 4, "lora_alpha": 8, "alpha_pattern": {"^transformer_blocks.1.attn1.to_q": 2, "time_embed.linear": 6}}
    metadata = {"lora_adapter_metadata": json.dumps({prefix + key: value for key, value in stated.items()})}
    made = in_diffusers_spelling(tensors()) | {"transformer.proj_in.alpha": torch.tensor(4.0)}
    lora = load_lora(saved(path, made, metadata))
    scales = [change.scale for change in lora.layers.values()]
    assert dict(zip(lora.layers, scales, strict=True)) == {
        "transformer_blocks.0.attn1.to_q": 2.0,
        "transformer_blocks.1.attn1.to_q": 0.5,
        "transformer_blocks.1.attn2.to_out.0": 2.0,
        "transformer_blocks.1.ff.net.0.proj": 2.0,
        "patchify_proj": 1.0,
        "adaln_single.linear": 1.5,
    }
    root = {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "use_rslora": True})}
    assert load_lora(saved(path, tensors(), root)).layers["patchify_proj"].scale == 8 / 4**0.5


def test_the_header_s_entries_are_kept(path: Path) -> None:
    lora = load_lora(saved(path, tensors(), {"reference_downscale_factor": "2"}))
    assert lora.metadata == {"reference_downscale_factor": "2"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_any_floating_type_is_read_as_it_is_stored(path: Path, dtype: torch.dtype) -> None:
    made = {name: tensor.to(dtype) for name, tensor in tensors("diffusion_model.").items()}
    change = load_lora(saved(path, made)).layers["patchify_proj"]
    assert change.down.dtype == dtype
    expected = made["diffusion_model.patchify_proj.lora_B.weight"].float() @ change.down.float()
    assert torch.equal(change.of_weight(1.0, torch.device("cpu")), expected)


def test_a_description_says_what_is_changed_and_of_which_model(path: Path) -> None:
    made = {
        f"transformer.transformer_blocks.{block}.attn1.to_q.lora_{part}.weight": torch.zeros(shape)
        for block in range(48)
        for part, shape in (("A", (block % 2 + 1, 4096)), ("B", (4096, block % 2 + 1)))
    }
    header = read_header(saved(path, made))
    assert is_lora(header)
    described = describe_lora(header)
    assert described.ranks == (1, 2)
    assert described.modules == {"transformer_blocks.*.attn1.to_q": 48}
    assert described.made_for == "blocks 0 to 47 of a transformer 4096 wide, as the 13B releases are"


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda made: {name: tensor for name, tensor in made.items() if not any(part in name for part in parts)}


def changed(name: str, tensor: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda made: made | {f"diffusion_model.{name}": tensor}


NAN = torch.full((RANK, 16), 1.0)
NAN[1, 2], NAN[3, 3] = float("nan"), float("inf")
BROKEN: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "A without B": (without("0.attn1.to_q.lora_B"), r"no counterpart.*0\.attn1\.to_q\.lora_A\.weight"),
    "B without A": (without("patchify_proj.lora_A"), r"no counterpart.*patchify_proj\.lora_B\.weight"),
    "alpha alone": (changed("proj_out.alpha", torch.ones(())), r"no counterpart.*proj_out\.alpha"),
    "ranks differ": (
        changed("patchify_proj.lora_A.weight", torch.ones(3, 16)),
        r"lora_A\.weight is \[3, 16\].*\[32, 4\]",
    ),
    "no rank": (without("."), "holds no LoRA"),
    "rank 0": (
        lambda made: (
            made
            | {"diffusion_model.patchify_proj.lora_A.weight": torch.ones(0, 16)}
            | {"diffusion_model.patchify_proj.lora_B.weight": torch.ones(32, 0)}
        ),
        r"lora_A\.weight is \[0, 16\]",
    ),
    "a convolution": (changed("patchify_proj.lora_A.weight", torch.ones(4, 16, 1)), r"\[4, 16, 1\].*linear layers"),
    "alpha of many": (changed("patchify_proj.alpha", torch.ones(4)), r"alpha is \[4\].*one number"),
    "integers": (
        changed("patchify_proj.lora_A.weight", torch.ones(4, 16, dtype=torch.int8)),
        r"patchify_proj\.lora_A\.weight is stored as I8",
    ),
    "NaN": (
        changed("patchify_proj.lora_A.weight", NAN),
        r"patchify_proj\.lora_A\.weight has 2 values.*NaN or infinite",
    ),
    "infinite alpha": (changed("patchify_proj.alpha", torch.tensor(float("inf"))), r"patchify_proj\.alpha has 1 value"),
    "DoRA": (changed("patchify_proj.dora_scale", torch.ones(32)), r"no part of a LoRA: .*dora_scale.*DoRA"),
    "a bias": (changed("patchify_proj.lora_B.bias", torch.ones(32)), r"no part of a LoRA: .*lora_B\.bias"),
    "a whole layer": (changed("patchify_proj.diff", torch.ones(32, 16)), r"no part of a LoRA: .*diff"),
    "two spellings": (
        lambda made: made | tensors("diffusion_model.", "lora_down", "lora_up"),
        r"12 of its tensors are there twice.*lora_down",
    ),
    "two prefixes": (lambda made: made | tensors("transformer."), r"12 of its tensors are there twice"),
    "two names": (changed("proj_in.lora_A.weight", torch.ones(4, 16)), r"1 of its tensors are there twice.*proj_in"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_with_its_name_and_the_tensor(path: Path, kind: str) -> None:
    change, message = BROKEN[kind]
    saved(path, change(tensors("diffusion_model.")) or {"noise": torch.ones(1)})
    with pytest.raises(CheckpointError, match=rf"style\.safetensors.*{message}"):
        load_lora(path)


@pytest.mark.parametrize("stated", ["{", "[1]", '{"lora_alpha": "x"}', '{"alpha_pattern": {"(": 1}}'])
def test_settings_that_make_no_sense_are_refused(path: Path, stated: str) -> None:
    saved(path, tensors(), {"lora_adapter_metadata": stated})
    with pytest.raises(CheckpointError, match=r"style\.safetensors.*lora_adapter_metadata"):
        load_lora(path)


def test_a_whole_model_is_no_lora(tiny_file: Path, path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is a whole model.*--model"):
        load_lora(tiny_file)
    saved(path, {"proj_in.weight": torch.ones(32, 16)})
    with pytest.raises(CheckpointError, match="is a whole model"):
        load_lora(path)
    assert not is_lora(read_header(tiny_file))


def test_a_cut_or_missing_file_is_named(path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        load_lora(path)
    saved(path, tensors())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cut short"):
        load_lora(path)
