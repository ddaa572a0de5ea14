"""T5 encoders in GGUF files, as llama.cpp writes them, quantised or not; read with the ``gguf`` package.

A tensor is expanded to float32 when it is asked for, by the package's own functions. The file brings its tokenizer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openltx.errors import CheckpointError

_LAYER = {
    "attn_norm": "layer.0.layer_norm",
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_norm": "layer.1.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
}
_WHOLE = {"token_embd.weight": "embed_tokens.weight", "enc.output_norm.weight": "final_layer_norm.weight"}


@dataclass(frozen=True, kw_only=True)
class GGUFSource:
    """``checkpoints.t5.T5Source`` over a GGUF file."""

    tensors: dict[str, Any]

    @staticmethod
    def open(path: Path) -> "GGUFSource":
        """Raises ``CheckpointError`` if it is damaged or of another architecture."""
        reader = open_gguf(path)
        architecture = field(reader, "general.architecture")
        if architecture not in ("t5encoder", "t5"):
            raise CheckpointError(
                f"{path} is a GGUF file of {architecture!r}, not of a T5 encoder. The released models read T5 v1.1 "
                "XXL, in GGUF files 't5encoder'."
            )
        return GGUFSource(
            tensors={_rename(tensor.name): tensor for tensor in reader.tensors if not _is_of_decoder(tensor.name)}
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in self.tensors.items()}

    def tensor(self, name: str) -> Tensor:
        return _expand(self.tensors[name], slice(None))

    def rows(self, name: str, ids: Int[Tensor, "n"]) -> Tensor:
        return _expand(self.tensors[name], ids.numpy())

    def start(self, name: str, size: int) -> bytes:
        return self.tensors[name].data.reshape(-1).view(np.uint8)[:size].tobytes()


def is_gguf(path: Path) -> bool:
    """Whether it is a file that begins as GGUF files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def open_gguf(path: Path) -> Any:
    """The ``gguf.GGUFReader`` of a file."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise CheckpointError(f"To read {path}, type: pip install 'openltx[gguf]'") from error
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}). Download or copy it again.") from error


def field(reader: Any, name: str) -> Any:
    """A value of the file's header, or None."""
    return reader.fields[name].contents() if name in reader.fields else None


def _rename(name: str) -> str:
    """A tensor's name in transformers, below "encoder."; unknown ones stay."""
    if name in _WHOLE:
        return _WHOLE[name]
    parts = name.split(".")  # enc.blk.3.attn_q.weight
    if len(parts) == 5 and parts[:2] == ["enc", "blk"] and parts[3] in _LAYER:
        return f"block.{parts[2]}.{_LAYER[parts[3]]}.{parts[4]}"
    return name


def _is_of_decoder(name: str) -> bool:
    return name.startswith("dec.") or name == "output.weight"


def _expand(tensor: Any, rows: Any) -> Tensor:
    from gguf import dequantize

    values = dequantize(tensor.data[rows], tensor.tensor_type)
    return torch.from_numpy(values if values.flags.writeable else values.copy())
