"""T5 encoders in files: folders as transformers writes them, and single files in safetensors or GGUF.

Finding one reads headers only; ``T5Stored`` reads the tensors as the network asks for them. A file is recognised by its
tensors, whatever stands before their names ("", "encoder.", "text_encoders.t5xxl.transformer.encoder.", ...); what
else is in it, a decoder or other networks, is left aside. Weights may be float32, float16, bfloat16 or float8, the last
also with one scale a matrix, as ComfyUI's "scaled" files have. Raises ``CheckpointError``.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openltx.cache import TensorCache, cache_folder
from openltx.checkpoints.gguf import GGUFSource, is_gguf
from openltx.checkpoints.header import StoredTensor, read_header, read_tensors
from openltx.checkpoints.single_file import some
from openltx.checkpoints.tokenizer import find_tokenizer, load_tokenizer
from openltx.errors import CheckpointError
from openltx.models.t5 import Part, T5Config, T5Encoder

PARTS: dict[Part, str] = {
    "attention_norm": "block.{}.layer.0.layer_norm.weight",
    "query": "block.{}.layer.0.SelfAttention.q.weight",
    "key": "block.{}.layer.0.SelfAttention.k.weight",
    "value": "block.{}.layer.0.SelfAttention.v.weight",
    "attention_out": "block.{}.layer.0.SelfAttention.o.weight",
    "hidden_norm": "block.{}.layer.1.layer_norm.weight",
    "gate": "block.{}.layer.1.DenseReluDense.wi_0.weight",
    "up": "block.{}.layer.1.DenseReluDense.wi_1.weight",
    "down": "block.{}.layer.1.DenseReluDense.wo.weight",
    "distances": "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "final_norm": "final_layer_norm.weight",
}
"""Our names to those of the files, below their prefix."""

WORDS = "embed_tokens.weight"
SAMPLE_BYTES = 4096


@runtime_checkable  # for the shape checks of the tests
class T5Source(Protocol):
    """The tensors of an encoder, by the names of ``PARTS`` and ``WORDS``."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def tensor(self, name: str) -> Tensor:
        """The whole tensor, of any floating type."""
        ...

    def rows(self, name: str, ids: Int[Tensor, "n"]) -> Tensor:
        """Some rows of a matrix."""
        ...

    def start(self, name: str, size: int) -> bytes:
        """The first ``size`` bytes, as they are stored."""
        ...


@dataclass(frozen=True, kw_only=True)
class T5Stored:
    """The weights of an encoder where they lie, as ``models.t5.T5Weights``."""

    path: Path
    config: T5Config
    source: T5Source

    @property
    def fingerprint(self) -> str:
        """Of all names and shapes and the beginning of every tensor: to hash the 10 GB of T5-XXL would take seconds."""
        digest = hashlib.sha256()
        for name, shape in sorted(self.source.shapes.items()):
            digest.update(f"{name} {shape}\n".encode())
            digest.update(self.source.start(name, SAMPLE_BYTES))
        return digest.hexdigest()[:16]

    def read(self, part: Part, layer: int = 0) -> Tensor:
        """One tensor as it is stored, with its scale applied."""
        return self.source.tensor(PARTS[part].format(layer))

    def words(self, ids: Int[Tensor, "n"]) -> Float[Tensor, "n e"]:
        """Rows of the word embeddings."""
        return self.source.rows(WORDS, ids)


def load_t5(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> T5Encoder:
    """The encoder of a file or folder, that computes in ``dtype`` and remembers its states in the cache folder.

    ``tokenizer`` is a tokenizer.json or spiece.model, or a folder with one; it is looked for beside the weights if left
    out. Reads headers and the tokenizer only.
    """
    weights = find_t5(Path(path))
    place = find_tokenizer(Path(path), None if tokenizer is None else Path(tokenizer))
    tokenize = load_tokenizer(place, weights.config.vocabulary)
    cache = TensorCache(cache_folder() / "text")
    return T5Encoder(weights, tokenize, dtype=dtype, device=device, cache=cache)


def find_t5(path: Path) -> T5Stored:
    """The weights of a folder (itself or its ``text_encoder/``), a safetensors file or a GGUF file."""
    if path.is_dir():
        folder = path / "text_encoder" if (path / "text_encoder" / "config.json").is_file() else path
        stated = _stated_config(folder / "config.json")
        source = _safetensors_source(folder, _folder_tensors(folder))
        return _checked(folder, source, stated)
    if is_gguf(path):
        gguf = GGUFSource.open(path)
        return _checked(path, gguf, _sniffed(path, gguf.shapes))
    source = _safetensors_source(path, read_header(path).tensors)
    return _checked(path, source, _sniffed(path, source.shapes))


@dataclass(frozen=True, kw_only=True)
class SafetensorsSource:
    """``T5Source`` over one safetensors file or several; ``scales`` by the name of the matrix that they belong to."""

    tensors: Mapping[str, StoredTensor]
    scales: Mapping[str, StoredTensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, stored in self.tensors.items()}

    def tensor(self, name: str) -> Tensor:
        return self._scaled(name, _read(self.tensors[name]))

    def rows(self, name: str, ids: Int[Tensor, "n"]) -> Tensor:
        table = _read(self.tensors[name])
        if table.itemsize == 1:  # torch does not pick rows of eight-bit floats
            return self._scaled(name, table.view(torch.uint8)[ids].view(table.dtype).to(torch.bfloat16))
        return self._scaled(name, table[ids])

    def start(self, name: str, size: int) -> bytes:
        return _read(self.tensors[name]).flatten().view(torch.uint8)[:size].numpy().tobytes()

    def _scaled(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.float() * _read(self.scales[name]).float() if name in self.scales else tensor


def _read(stored: StoredTensor) -> Tensor:
    """A view of the mapped file."""
    return read_tensors({stored.name: stored})[stored.name]


def _safetensors_source(path: Path, tensors: Mapping[str, StoredTensor]) -> SafetensorsSource:
    """The encoder's tensors among those of a file or folder."""
    root = _root(path, tensors)
    found = {name.removeprefix(root): stored for name, stored in tensors.items() if name.startswith(root)}
    for name in (f"{root.removesuffix('encoder.')}shared.weight", f"{root}shared.weight"):
        if name in tensors:  # the same table under another name
            found.pop("shared.weight", None)
            found[WORDS] = tensors[name]
    found = {name: stored for name, stored in found.items() if not _BESIDES.match(name)}
    scales = {}
    for name in [name for name in found if name.endswith(_SCALES)]:
        scales[f"{name.rpartition('.')[0]}.weight"] = found.pop(name)
    odd = [f"{name} ({stored.dtype})" for name, stored in found.items() if stored.dtype not in _DTYPES]
    if odd:
        raise CheckpointError(
            f"{path} stores weights in a form that openltx does not read: {some(odd)}. It reads {', '.join(_DTYPES)}, "
            "and GGUF files."
        )
    return SafetensorsSource(tensors=found, scales=scales)


def _root(path: Path, tensors: Mapping[str, StoredTensor]) -> str:
    """What stands before the encoder's tensor names."""
    anchor = PARTS["distances"]
    roots = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    roots = [root for root in roots if not root.endswith("decoder.")]
    if len(roots) == 1:
        return roots[0]
    found = f"it has {len(roots)} of them" if roots else f"no tensor is called [...]{anchor}"
    raise CheckpointError(
        f"{path} is not a T5 encoder: {found} among its {len(tensors)} tensors ({some(sorted(tensors))}). The released "
        "models read T5 v1.1 XXL: give its encoder, as a folder of transformers, a .safetensors file or a .gguf file."
    )


def _folder_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of model.safetensors, or of the shards that its index lists."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        weights = folder / "model.safetensors"
        if not weights.is_file() and (pickles := sorted(path.name for path in folder.glob("*.bin"))):
            raise CheckpointError(
                f"{folder} has its weights in {some(pickles)}, which are pickles: loading one can run any code that "
                "its maker put in, so openltx never does. Use the .safetensors files of the same model."
            )
        return read_header(weights).tensors
    where = _json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise CheckpointError(f'{index} has no "weight_map", which says in which file a tensor is.')
    shards = {file: read_header(folder / file).tensors for file in sorted(set(where.values()))}
    lost = [f"{name} in {file}" for name, file in where.items() if name not in shards[file]]
    if lost:
        raise CheckpointError(f"{index} lists tensors that are not there: {some(lost)}. Download the folder again.")
    return {name: shards[file][name] for name, file in where.items()}


def _stated_config(path: Path) -> dict[str, Any]:
    """The fields of ``T5Config`` that a config.json of transformers states."""
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} holds no text encoder: there is no {path.name}. Give the folder with config.json and "
            "model.safetensors (of diffusers' layout: text_encoder/ or the folder above it), or a weight file."
        )
    stated = _json(path)
    for key, only in {"model_type": "t5", "feed_forward_proj": "gated-gelu"}.items():
        if stated.get(key) != only:
            raise CheckpointError(
                f"{path} says {key}={stated.get(key)!r}, and not {only!r}: this is no T5 v1.1, which is what the "
                "released models read."
            )
    return {ours: stated[key] for key, ours in _CONFIG_KEYS.items() if key in stated}


def _sniffed(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The sizes, from shapes; what shapes do not show is the same in every T5 v1.1."""
    try:
        (num_buckets, num_heads), (vocabulary, channels) = shapes[PARTS["distances"]], shapes[WORDS]
        inner, hidden = shapes[PARTS["query"].format(0)][0], shapes[PARTS["gate"].format(0)][0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no T5 v1.1 encoder, which is what the released models read: {error} is missing or misshapen."
        ) from error
    return {
        "vocabulary": vocabulary,
        "channels": channels,
        "hidden_channels": hidden,
        "num_heads": num_heads,
        "head_dim": inner // num_heads,
        "num_layers": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("block.")),
        "num_buckets": num_buckets,
    }


def _checked(path: Path, source: T5Source, sizes: Mapping[str, Any]) -> T5Stored:
    """The encoder, if its tensors are exactly those of its sizes."""
    config = T5Config(**sizes)
    expected, shapes = _expected_shapes(config), source.shapes
    problems = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [name for name in shapes if name not in expected],
        "of another shape": [
            f"{name} {list(shapes[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if shapes.get(name, shape) != shape
        ],
    }
    if any(problems.values()):
        told = "; ".join(f"{len(names)} {what}: {some(names)}" for what, names in problems.items() if names)
        raise CheckpointError(f"The tensors of {path} are not those of a T5 v1.1 encoder. {told}.")
    return T5Stored(path=path, config=config, source=source)


def _expected_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    width, hidden, inner = config.channels, config.hidden_channels, config.num_heads * config.head_dim
    of_part: dict[Part, tuple[int, ...]] = {
        **dict.fromkeys(("attention_norm", "hidden_norm"), (width,)),
        **dict.fromkeys(("query", "key", "value"), (inner, width)),
        "attention_out": (width, inner),
        **dict.fromkeys(("gate", "up"), (hidden, width)),
        "down": (width, hidden),
    }
    return {
        WORDS: (config.vocabulary, width),
        PARTS["distances"]: (config.num_buckets, config.num_heads),
        PARTS["final_norm"]: (width,),
        **{PARTS[part].format(i): shape for i in range(config.num_layers) for part, shape in of_part.items()},
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return value


_BESIDES = re.compile(r"decoder\.|lm_head\.|scaled_fp8$|.*\.(scale_input|input_scale)$")  # no part of the encoder
_SCALES = (".scale_weight", ".weight_scale")
_DTYPES = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_CONFIG_KEYS = {
    "vocab_size": "vocabulary",
    "d_model": "channels",
    "d_ff": "hidden_channels",
    "num_heads": "num_heads",
    "d_kv": "head_dim",
    "num_layers": "num_layers",
    "relative_attention_num_buckets": "num_buckets",
    "relative_attention_max_distance": "max_distance",
    "layer_norm_epsilon": "norm_eps",
}
