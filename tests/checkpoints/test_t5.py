"""One T5 in all the forms that it is found in, and what is taken for one and is not."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from openltx.checkpoints.t5 import PARTS, WORDS, find_t5, load_t5
from openltx.errors import CheckpointError
from openltx.models.t5 import T5, T5Config

COMFY = "text_encoders.t5xxl.transformer."
SHARED = "shared.weight"
IDS = torch.tensor([[5, 9, 11, 1, 0, 0], [4, 6, 1, 0, 0, 0]])
MASK = IDS > 0


@pytest.fixture(scope="module")
def folder(t5_files, tmp_path_factory):
    return t5_files.write_folder(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def tensors(t5_files, folder):
    return t5_files.tensors_of(folder)


@pytest.fixture(scope="module")
def expected(folder):
    return T5(find_t5(folder))(IDS, MASK)[MASK]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t5xxl.safetensors"


def anonymous_bytes():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def states(path):
    return T5(find_t5(path))(IDS, MASK)[MASK]


def error(path, expected):
    return ((states(path) - expected).norm() / expected.norm()).item()


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_a_folder_is_read_from_inside_and_from_above_whole_or_in_shards(t5_files, folder, tmp_path, expected):
    assert torch.equal(states(folder / "text_encoder"), expected)
    sharded = t5_files.write_folder(tmp_path / "sharded", shard="100KB")
    assert len(list((sharded / "text_encoder").glob("*.safetensors"))) > 2
    assert torch.equal(states(sharded), expected)
    assert find_t5(sharded).fingerprint == find_t5(folder).fingerprint


@pytest.mark.parametrize("prefix", ["", COMFY, "text_encoder.", "t5xxl.transformer."])
def test_a_single_file_is_read_under_any_prefix(t5_files, path, tensors, expected, prefix):
    t5_files.write_single(path, tensors, prefix)
    assert torch.equal(states(path), expected)


@pytest.mark.parametrize("words", ["encoder.embed_tokens.weight", "both", SHARED])
def test_the_word_embeddings_have_two_names(t5_files, path, tensors, expected, words):
    alone = without(tensors, SHARED, "encoder.embed_tokens.weight")
    names = (SHARED, "encoder.embed_tokens.weight") if words == "both" else (words,)
    t5_files.write_single(path, alone | dict.fromkeys(names, tensors[SHARED]), COMFY)
    assert torch.equal(states(path), expected)


def test_names_without_encoder_in_them_are_read(t5_files, path, tensors, expected):
    t5_files.write_single(path, {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()})
    assert torch.equal(states(path), expected)


def test_what_else_is_in_the_file_is_left_aside(t5_files, path, tensors, expected):
    decoder = {name.replace("encoder.", "decoder."): tensor for name, tensor in tensors.items() if name != SHARED}
    others = {"lm_head.weight": torch.ones(2), **decoder}
    t5_files.write_single(path, tensors | others)
    assert torch.equal(states(path), expected)
    tensors = {COMFY + name: tensor for name, tensor in tensors.items()}
    t5_files.write_single(path, tensors | {"vae.decoder.conv.weight": torch.ones(2)})
    assert torch.equal(states(path), expected)


def test_the_sizes_come_from_the_shapes_or_from_the_config(t5_files, folder, path, tensors):
    t5_files.write_single(path, tensors)
    config = T5Config(
        vocabulary=64, channels=384, hidden_channels=48, num_heads=4, head_dim=8, num_layers=2, num_buckets=32
    )
    assert find_t5(path).config == find_t5(folder).config == config


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.bfloat16, 0.02), (torch.float16, 0.002), (torch.float8_e4m3fn, 0.25)]
)
def test_narrow_weights_are_widened_as_they_are_used(t5_files, path, tensors, expected, dtype, most):
    t5_files.write_single(path, tensors, dtype=dtype)
    assert find_t5(path).read("query").dtype == dtype
    assert 0 < error(path, expected) <= most
    rounded = t5_files.write_single(
        path.with_name("rounded.safetensors"), {n: t.to(dtype).float() for n, t in tensors.items()}
    )
    assert torch.equal(states(path), states(rounded))
    narrow = T5(find_t5(path), torch.bfloat16)(IDS, MASK)
    assert narrow.dtype == torch.float32
    assert narrow.isfinite().all()


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
def test_scaled_eight_bit_weights_get_their_scale(t5_files, path, tensors, expected, suffix):
    scaled = {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and "SelfAttention" in name and "relative" not in name:
            scale = tensor.abs().max() / 448
            base = name.removesuffix(".weight")
            scaled |= {name: (tensor / scale).to(torch.float8_e4m3fn), f"{base}.{suffix}": scale}
            scaled[f"{base}.scale_input"] = torch.ones(1)
        else:
            scaled[name] = tensor
    t5_files.write_single(path, scaled)
    assert 0 < error(path, expected) <= 0.1


@pytest.mark.parametrize(("kind", "most"), [("F32", 0.0), ("F16", 0.002), ("BF16", 0.02), ("Q8_0", 0.02)])
def test_gguf_files_are_read_quantised_or_not(t5_files, tmp_path, tensors, expected, kind, most):
    tensors = {name: tensor[..., :32] if name.endswith("wo.weight") else tensor for name, tensor in tensors.items()}
    tensors = {name: tensor[:32] if ".wi_" in name else tensor for name, tensor in tensors.items()}  # blocks of 32
    whole = t5_files.write_single(tmp_path / "whole.safetensors", tensors)
    path = t5_files.write_gguf(tmp_path / "t5.gguf", tensors, kind)
    assert find_t5(path).config == find_t5(whole).config
    assert error(path, states(whole)) <= most
    assert load_t5(path).tokenize(["a red box"]) == load_t5(whole).tokenize(["a red box"])


def test_gguf_names_are_those_of_the_package():
    import gguf

    from openltx.checkpoints.gguf import _rename

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    for template in PARTS.values():
        theirs = names.get_name(f"encoder.{template.format(1)}", try_suffixes=(".weight",))
        assert theirs is not None
        assert _rename(theirs) == template.format(1)
    assert names.get_name("shared.weight", try_suffixes=(".weight",)) == "token_embd.weight"
    assert _rename("token_embd.weight") == WORDS


def test_a_gguf_file_of_another_architecture_is_refused(t5_files, tmp_path, tensors):
    path = t5_files.write_gguf(tmp_path / "llama.gguf", tensors, architecture="llama")
    with pytest.raises(CheckpointError, match=r"llama\.gguf is a GGUF file of 'llama', not of a T5"):
        find_t5(path)


def test_a_cut_gguf_file_is_refused(t5_files, tmp_path, tensors):
    path = t5_files.write_gguf(tmp_path / "t5.gguf", tensors)
    for size in (20, 1000, path.stat().st_size - 5000):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError, match=r"t5\.gguf is damaged or cut short"):
            find_t5(path)


def test_a_missing_gguf_package_says_what_to_type(t5_files, tmp_path, tensors, monkeypatch):
    path = t5_files.write_gguf(tmp_path / "t5.gguf", tensors)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"pip install 'openltx\[gguf\]'"):
        find_t5(path)


def test_the_fingerprint_sees_every_tensor_and_no_name_of_the_file(t5_files, path, tensors):
    first = find_t5(t5_files.write_single(path, tensors)).fingerprint
    assert find_t5(t5_files.write_single(path.with_name("b.safetensors"), tensors, COMFY)).fingerprint == first
    seen = {first}
    for name, tensor in tensors.items():
        changed = tensor.clone()
        changed.view(-1)[0] += 1
        seen.add(find_t5(t5_files.write_single(path, tensors | {name: changed})).fingerprint)
    assert len(seen) == len(tensors) + 1


def llama(tensors):
    return {"model.embed_tokens.weight": torch.ones(4, 4), "model.layers.0.self_attn.q_proj.weight": torch.ones(4, 4)}


def clip(tensors):
    return {"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(4, 4)}


def decoder_only(tensors):
    return {name.replace("encoder.", "decoder."): tensor for name, tensor in tensors.items()}


def umt5(tensors):
    bias = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    return tensors | {bias.format(1): tensors[bias.format(0)]}


def first_t5(tensors):
    return {name.replace("wi_0", "wi"): tensor for name, tensor in tensors.items() if "wi_1" not in name}


def short(tensors):
    return without(tensors, "encoder.block.1.layer.1.DenseReluDense.wo.weight")


def narrow(tensors):
    return tensors | {"encoder.final_layer_norm.weight": torch.ones(5)}


def integers(tensors):
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    return tensors | {name: tensors[name].to(torch.int8)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (llama, "is not a T5 encoder: no tensor is called"),
        (clip, "is not a T5 encoder: no tensor is called"),
        (decoder_only, "is not a T5 encoder: no tensor is called"),
        (umt5, r"1 unexpected: block\.1\.layer\.0\.SelfAttention\.relative_attention_bias"),
        (first_t5, "is no T5 v1.1 encoder"),
        (short, r"1 missing: block\.1\.layer\.1\.DenseReluDense\.wo\.weight"),
        (narrow, r"final_layer_norm\.weight \[5\] instead of \[384\]"),
        (integers, r"SelfAttention\.q\.weight \(I8\)"),
        (lambda tensors: without(tensors, SHARED), "embed_tokens.weight' is missing"),
    ],
)
def test_another_file_is_refused_in_one_sentence(t5_files, path, tensors, change, complaint):
    t5_files.write_single(path, change(tensors))
    with pytest.raises(CheckpointError, match=complaint) as caught:
        find_t5(path)
    assert str(path) in str(caught.value)


def test_damaged_and_missing_files_are_named(t5_files, path, tensors, tmp_path):
    t5_files.write_single(path, tensors)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        find_t5(path)
    with pytest.raises(CheckpointError, match="There is no file"):
        find_t5(tmp_path / "t5xxl_fp16.safetensors")
    torch.save(tensors, tmp_path / "t5.bin")
    with pytest.raises(CheckpointError, match="is a pickle"):
        find_t5(tmp_path / "t5.bin")


def broken_folder(folder, tmp_path, change):
    copy = shutil.copytree(folder / "text_encoder", tmp_path / "broken")
    config = json.loads((copy / "config.json").read_text())
    change(copy, config)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def pickled(copy, config):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")


def relu(copy, config):
    config["feed_forward_proj"] = "relu"


def bert(copy, config):
    config["model_type"] = "bert"


def wider(copy, config):
    config["d_model"] = 512


def lost_shard(copy, config):
    index = {"weight_map": {SHARED: "model.safetensors", "encoder.lost": "model.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))


def odd_index(copy, config):
    (copy / "model.safetensors.index.json").write_text('{"weight_map": ["model.safetensors"]}')


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (pickled, r"pytorch_model\.bin, which are pickles"),
        (relu, "feed_forward_proj='relu', and not 'gated-gelu'"),
        (bert, "model_type='bert', and not 't5'"),
        (wider, "instead of"),
        (lost_shard, "lists tensors that are not there: encoder.lost in model.safetensors"),
        (odd_index, 'has no "weight_map"'),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(folder, tmp_path, change, complaint):
    with pytest.raises(CheckpointError, match=complaint):
        find_t5(broken_folder(folder, tmp_path, change))


def test_a_folder_without_an_encoder_says_what_belongs_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no text encoder: there is no config\.json"):
        find_t5(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux says what memory is made of")
def test_reading_maps_the_file_and_does_not_copy_it(t5_files, path, tensors):
    large = tensors | {SHARED: torch.randn(2_000_000 // 384 * 10, 384)}  # 80 MB
    weights = find_t5(t5_files.write_single(path, large))
    before = anonymous_bytes()
    table = weights.source.tensor(WORDS)
    assert table.sum().isfinite()
    assert anonymous_bytes() - before < 10_000_000
