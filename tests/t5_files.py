"""A tiny T5 as transformers writes it, its other forms, and a tokenizer of a few words, for several tests."""

import json
import string
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from openltx.checkpoints.tokenizer import unigram

SIZES = {"vocab_size": 64, "d_model": 384, "d_kv": 8, "num_heads": 4, "d_ff": 48, "num_layers": 2}
WORDS = ["a", "red", "ball", "blue", "box", "the", "bounces"]


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer.json of T5's kind: letters, and a few words."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS] + [(letter, -5.0) for letter in string.ascii_lowercase + ".,"]
    folder.mkdir(parents=True, exist_ok=True)
    unigram(pieces, b"").save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def transformers_t5(**sizes: int):
    """transformers' encoder with weights that make every term of the formula count."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(**{**SIZES, **sizes}, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    model = T5EncoderModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        scale = 1.0 if "relative" in name or "shared" in name else 0.5 * parameter.shape[-1] ** -0.5
        offset = 1.0 if "norm" in name else 0.0
        parameter.data = offset + scale * torch.randn(parameter.shape, generator=generator)
    return model


def write_folder(folder: Path, shard: str = "1GB") -> Path:
    """``text_encoder`` and ``tokenizer`` beside each other, as in a folder of diffusers."""
    transformers_t5().save_pretrained(folder / "text_encoder", max_shard_size=shard)
    write_tokenizer(folder / "tokenizer")
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors that transformers wrote."""
    return load_file(folder / "text_encoder" / "model.safetensors")


def write_single(path: Path, tensors: dict[str, Tensor], prefix: str = "", dtype: torch.dtype | None = None) -> Path:
    """One file of these tensors, renamed and converted, with a tokenizer beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {prefix + name: (tensor.to(dtype) if dtype else tensor).clone() for name, tensor in tensors.items()}, path
    )
    write_tokenizer(path.parent)
    return path


def write_gguf(path: Path, tensors: dict[str, Tensor], kind: str = "F32", architecture: str = "t5encoder") -> Path:
    """What llama.cpp's converter makes of them: matrices as ``kind``, and the tokenizer in the header."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, SIZES["num_layers"])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_layer_norm_rms_eps(1e-6)
    for name, tensor in tensors.items():
        quantised = gguf.GGMLQuantizationType[kind if tensor.ndim == 2 and "relative" not in name else "F32"]
        theirs = names.get_name(name, try_suffixes=(".weight",))
        assert theirs is not None
        writer.add_tensor(theirs, gguf.quantize(tensor.numpy(), quantised), raw_dtype=quantised)
    vocabulary = json.loads(write_tokenizer(path.parent / "words").read_text())["model"]["vocab"]
    writer.add_token_list([word for word, _ in vocabulary])
    writer.add_token_scores([score for _, score in vocabulary])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
