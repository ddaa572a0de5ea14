"""Every kind of broken model is refused with one message that names the file and what to do, and nothing is loaded.

Each kind is made of a whole tiny model, and given to ``load_bundle`` and to the command line.
"""

import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from openltx.checkpoints import load_bundle, load_transformer
from openltx.checkpoints.convert import convert
from openltx.checkpoints.header import read_header
from openltx.checkpoints.single_file import header_config
from openltx.cli import main
from openltx.errors import CheckpointError

PREFIX = "model.diffusion_model."
FIRST = f"{PREFIX}adaln_single.emb.timestep_embedder.linear_1.bias"


def raw(path):
    """A safetensors file taken apart: its header as a dict, and its bytes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def in_header(change):
    """Change the header; the bytes stay."""

    def build(path):
        header, data = raw(path)
        return put(path, change(header) or header, data)

    return build


def in_tensors(change):
    """Change the tensors; the config stays."""

    def build(path):
        metadata = {"config": json.dumps(header_config(read_header(path)))}
        tensors = load_file(path)
        save_file({n: t.contiguous() for n, t in (change(tensors) or tensors).items()}, path, metadata=metadata)
        return path

    return build


def in_config(change):
    """Change the config; the tensors stay."""

    def build(path):
        config = header_config(read_header(path))
        save_file(load_file(path), path, metadata={"config": json.dumps(change(config) or config)})
        return path

    return build


def content(data):
    def build(path):
        path.write_bytes(data)
        return path

    return build


def in_folder(change):
    """A diffusers folder of the model, whose transformer has two shards, changed."""

    def build(path):
        folder = path.with_name("folder")
        convert(path, folder, "diffusers")
        part = folder / "transformer"
        tensors = load_file(part / "diffusion_pytorch_model.safetensors")
        (part / "diffusion_pytorch_model.safetensors").unlink()
        where = {}
        for i in range(2):
            names = sorted(tensors)[i::2]
            save_file({name: tensors[name] for name in names}, part / f"shard-{i}.safetensors")
            where |= dict.fromkeys(names, f"shard-{i}.safetensors")
        index = {"weight_map": where}
        change(part, index)
        (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return build


def swapped(header, name, **values):
    header[name] |= values


def set_value(name, value):
    def change(tensors):
        tensors[name].view(-1)[0] = value

    return change


def pickled(path):
    path.write_bytes(pickle.dumps({"state_dict": [1.0] * 100}, protocol=2))
    return path


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
    return path


def overlapping(header):
    first, second = sorted((name for name in header if name != "__metadata__"),
                           key=lambda name: header[name]["data_offsets"])[:2]  # fmt: skip
    start, end = header[second]["data_offsets"]
    length = end - start
    header[second]["data_offsets"] = [header[first]["data_offsets"][0], header[first]["data_offsets"][0] + length]


def named_twice(path):
    header, data = raw(path)
    text = json.dumps(header)[:-1] + f', "{FIRST}": {json.dumps(header[FIRST])}}}'
    return put(path, text.encode(), data)


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0" * 64)
    return path


def a_lora(path):
    save_file({"diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 32)}, path)
    return path


def an_upsampler(path):
    save_file({"initial_conv.weight": torch.zeros(1), "final_conv.weight": torch.zeros(1)}, path,
              metadata={"config": json.dumps({"_class_name": "LatentUpsampler", "in_channels": 128})})  # fmt: skip
    return path


def a_text_encoder(path):
    save_file({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(1)}, path)
    return path


def a_diffusers_part(path):
    save_file({"proj_in.weight": torch.zeros(1), "proj_out.weight": torch.zeros(1)}, path)
    return path


def a_broken_link(path):
    path.unlink()
    path.symlink_to(path.name)
    return path


def an_empty_folder(path):
    folder = path.with_name("empty")
    folder.mkdir()
    return folder


def without_permission(path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.chmod(0)
    return path


def outside(part, index):
    index["weight_map"]["proj_in.weight"] = "../vae/diffusion_pytorch_model.safetensors"


def into_itself(part, index):
    index["weight_map"]["proj_in.weight"] = "diffusion_pytorch_model.safetensors.index.json"


def cyclic(part, index):
    (part / "shard-0.safetensors").unlink()
    (part / "shard-0.safetensors").symlink_to("shard-1.safetensors")
    (part / "shard-1.safetensors").unlink()
    (part / "shard-1.safetensors").symlink_to("shard-0.safetensors")


def without_shard(part, index):
    (part / "shard-1.safetensors").unlink()


def without_map(part, index):
    index["weight_map"] = ["shard-0.safetensors"]


def odd_transformer(part, index):
    config = json.loads((part / "config.json").read_text())
    (part / "config.json").write_text(json.dumps(config | {"num_attention_heads": "four"}))


BROKEN = {
    "empty": (content(b""), "empty or cut short: it has 0 bytes"),
    "seven bytes": (content(b"\x10\0\0\0\0\0\0"), "empty or cut short"),
    "cut within the tensors": (lambda p: content(p.read_bytes()[:-1000])(p), "cut short: its header promises"),
    "cut within the header": (lambda p: content(p.read_bytes()[:100])(p), "cut short within its header"),
    "too long": (longer, "damaged: its header promises"),
    "a picture": (content(b"\x89PNG\r\n\x1a\n" + b"0" * 100), "no safetensors file"),
    "header is no JSON": (content(struct.pack("<Q", 4) + b"{{{{"), "header is not JSON"),
    "header of a terabyte": (content(struct.pack("<Q", 2**40) + b"{}"), "no safetensors file"),
    "header is a list": (content(struct.pack("<Q", 2) + b"[]"), "not a JSON object"),
    "a name twice": (named_twice, "names .*linear_1.bias.* twice"),
    "metadata is a list": (in_header(lambda h: h | {"__metadata__": ["a"]}), "makes no sense"),
    "metadata is no text": (in_header(lambda h: h | {"__metadata__": {"a": 1}}), "not all strings"),
    "overlapping": (in_header(overlapping), "damaged: .* is at the bytes"),
    "out of range": (in_header(lambda h: swapped(h, FIRST, data_offsets=[10**9, 10**9 + 128])), "cut short"),
    "end before start": (in_header(lambda h: swapped(h, FIRST, data_offsets=[128, 0])), "damaged"),
    "shape and bytes differ": (in_header(lambda h: swapped(h, FIRST, shape=[7])), f"damaged: {FIRST}"),
    "negative shape": (in_header(lambda h: swapped(h, FIRST, shape=[-32])), "makes no sense"),
    "unknown format": (in_header(lambda h: swapped(h, FIRST, dtype="F7")), f"stores {FIRST} as 'F7'"),
    "a pickle": (pickled, "is a pickle.*never does"),
    "a zip archive": (zipped, "a zip archive"),
    "a Git LFS pointer": (content(b"version https://git-lfs.github.com/spec/v1\noid"), "Git LFS pointer.*git lfs pull"),
    "a web page": (content(b"<!DOCTYPE html><html><title>404</title></html>"), "web page.*openltx pull"),
    "GGUF": (content(b"GGUF\x03\0\0\0" + b"\0" * 64), "GGUF"),
    "a link to itself": (a_broken_link, "a link that leads nowhere"),
    "no permission": (without_permission, "cannot be read: Permission denied"),
    "wrong shape": (
        in_tensors(lambda t: t | {PREFIX + "proj_out.bias": torch.zeros(5)}),
        r"proj_out.bias \[5\] instead",
    ),
    "a missing tensor": (in_tensors(lambda t: without(t, PREFIX + "proj_out.bias")), "1 missing: proj_out.bias"),
    "a tensor too many": (in_tensors(lambda t: t | {"vae.encoder.more": torch.zeros(1)}), "1 unexpected: encoder.more"),
    "a tensor of nothing": (in_tensors(lambda t: t | {"optimizer.step": torch.zeros(1)}), "belong to no transformer"),
    "two layouts at once": (
        in_tensors(lambda t: t | {PREFIX + "proj_in.weight": torch.zeros(1)}),
        "unexpected: proj_in",
    ),
    "NaN": (
        in_tensors(set_value(PREFIX + "proj_out.weight", float("nan"))),
        "1 of the .* of .*proj_out.weight are not finite",
    ),
    "infinity": (
        in_tensors(set_value("vae.decoder.conv_in.conv.weight", float("inf"))),
        "vae.decoder.conv_in.conv.weight are not fin",
    ),
    "integers": (
        in_tensors(lambda t: t | {PREFIX + "proj_out.weight": torch.zeros(16, 32, dtype=torch.int8)}),
        "1 tensors as integers, .*proj_out.weight as I8",
    ),
    "no VAE": (in_tensors(lambda t: {n: x for n, x in t.items() if n.startswith(PREFIX)}), "holds no LTX-Video VAE"),
    "renamed": (in_tensors(lambda t: {f"x{i}": x for i, x in enumerate(t.values())}), "not renamed"),
    "config is no JSON": (in_header(lambda h: h | {"__metadata__": {"config": "{"}}), '"config" entry .* is not JSON'),
    "config is a list": (in_header(lambda h: h | {"__metadata__": {"config": "[]"}}), '"config" entry .* is a list'),
    "a section is a list": (in_config(lambda c: c | {"vae": []}), '"vae" section .* is not an object'),
    "unknown block": (
        in_config(lambda c: edited(c, "vae", "encoder_blocks", [["swirl", 1]])),
        "'swirl'; openltx knows res_x",
    ),
    "a block of no pair": (
        in_config(lambda c: edited(c, "vae", "decoder_blocks", ["res_x"])),
        "not a .kind, parameters. pair",
    ),
    "a block's word for a number": (
        in_config(lambda c: edited(c, "vae", "decoder_blocks", [["res_x", {"num_layers": "two"}]])),
        "num_layers='two': it must be a whole number",
    ),
    "a billion layers": (
        in_config(lambda c: edited(c, "vae", "decoder_blocks", [["res_x", 10**9]])),
        "VAE of 1,0.* layers",
    ),
    "a word for a number": (in_config(lambda c: edited(c, "transformer", "num_layers", "two")), "num_layers='two'"),
    "half a layer": (in_config(lambda c: edited(c, "transformer", "num_layers", 2.5)), "num_layers=2.5"),
    "no size": (in_config(lambda c: dropped(c, "transformer", "num_layers")), "no 'num_layers'"),
    "another norm": (in_config(lambda c: edited(c, "transformer", "qk_norm", "layer_norm")), "qk_norm='layer_norm'"),
    "a config of another size": (
        in_config(lambda c: edited(c, "transformer", "num_layers", 28)),
        "28 blocks, 32 wide, and holds the tensors of 2 blocks",
    ),
    "channels that do not fit": (
        in_config(lambda c: edited(c, "vae", "latent_channels", 8)),
        "takes 16 channels .* have 8",
    ),
    "an unknown sampler": (in_config(lambda c: c | {"scheduler": {"sampler": "Cosine"}}), "sampler='Cosine'"),
    "a schedule of words": (
        in_config(lambda c: c | {"scheduler": {"target_shift_terminal": "low"}}),
        "target_shift_terminal='low'",
    ),
    "allowed times of words": (
        in_config(lambda c: c | {"allowed_inference_steps": ["one"]}),
        "allowed_inference_steps",
    ),
    "settings that are no JSON": (
        in_header(lambda h: edited(h, "__metadata__", "openltx.sampling", "steps")),
        "openltx.sampling",
    ),
    "a LoRA": (a_lora, "is a LoRA, not a model.*--model"),
    "an upsampler": (an_upsampler, "is a latent upsampler, not a model"),
    "a text encoder": (a_text_encoder, "is a T5 text encoder, not a model"),
    "a file out of a folder": (a_diffusers_part, "part of a diffusers folder"),
    "an empty folder": (an_empty_folder, "holds no transformer in the diffusers layout"),
    "a shard outside the folder": (in_folder(outside), r"'\.\./vae/.*Nothing outside the folder is read"),
    "an index of itself": (in_folder(into_itself), "not the name of a .safetensors file"),
    "shards in a circle": (in_folder(cyclic), "a link that leads nowhere"),
    "a missing shard": (in_folder(without_shard), "There is no file .*shard-1"),
    "an index without a map": (in_folder(without_map), 'no "weight_map"'),
    "a folder's word for a number": (in_folder(odd_transformer), "num_attention_heads=.four.: whole numbers"),
    "no file": (lambda p: p.with_name("tine.safetensors"), "Did you mean tiny.safetensors"),
}


def edited(values, section, key, value):
    return values | {section: {**values[section], key: value}}


def dropped(values, section, key):
    return values | {section: {name: value for name, value in values[section].items() if name != key}}


def without(tensors, name):
    return {other: tensor for other, tensor in tensors.items() if other != name}


def test_there_are_more_than_thirty_kinds():
    assert len(BROKEN) > 30


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_is_one_clear_error(kind, tiny_file, capsys):
    build, complaint = BROKEN[kind]
    path = build(tiny_file)
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(CheckpointError, match=complaint) as refused:
        load_bundle(path)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert main(["generate", "a ball", "--model", str(path), "-o", str(path.parent / "ball.mp4")]) == 2
    shown = capsys.readouterr()
    assert len(shown.err.strip().splitlines()) == 1
    assert "Traceback" not in shown.err
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("playrom", "Did you mean playroom"),
        ("ltxv-13b-0.9.8-distiled", "Did you mean ltxv-13b-0.9.8-distilled"),
        ("ltxv-2b-0.9.5", "not on this machine.*openltx pull ltxv-2b-0.9.5"),
        ("ltxv-spatial-upscaler-0.9.8", "release of another kind: upscaler"),
    ],
)
def test_an_unknown_or_absent_name_says_what_to_type(name, complaint, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("openltx.checkpoints.zoo.local_path", lambda _: None)
    with pytest.raises(CheckpointError, match=complaint):
        load_bundle(name)
    assert main(["generate", "a ball", "--model", name, "-o", str(tmp_path / "ball.mp4")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_an_unknown_recipe_is_named_with_those_that_exist(tiny_file, capsys):
    with pytest.raises(CheckpointError, match=r'called "ltxv-14b".*Possible: ltxv-2b-0\.9,'):
        load_bundle(tiny_file, recipe="ltxv-14b")
    assert main(["generate", "a ball", "--model", str(tiny_file), "--recipe", "ltxv-14b"]) == 2
    assert "ltxv-14b" in capsys.readouterr().err


def test_float16_is_refused_with_the_reason(tiny_file):
    with pytest.raises(CheckpointError, match=r"overflow.*torch\.bfloat16"):
        load_transformer(tiny_file, dtype=torch.float16)
    in_tensors(lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})(tiny_file)
    with pytest.raises(CheckpointError, match="overflow"):
        load_bundle(tiny_file)
    assert load_transformer(tiny_file, dtype=torch.bfloat16).proj_out.weight.dtype == torch.bfloat16


def test_weights_that_add_up_to_infinity_but_are_finite_are_loaded(tiny_file):
    def huge(tensors):
        tensors[PREFIX + "proj_out.weight"][:] = 3e38

    in_tensors(huge)(tiny_file)
    assert torch.isfinite(load_transformer(tiny_file).proj_out.weight).all()
