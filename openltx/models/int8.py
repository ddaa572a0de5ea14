"""Linear layers in eight bits (dynamic W8A8), for a transformer that is only sampled from.

    w_q = round(w / s_w),      s_w = max |w| / 127            once, per output channel
    x_q = round(x / s_x + z),  s_x = (max x - min x) / 255    at every call, per token
    y   = s_x s_w (x_q - z) w_q^T + bias

Half the memory of bfloat16; on processors with AVX-512 VNNI the product is one of eight-bit numbers. Elsewhere the same
numbers are computed in floating point, which saves memory but no time. What is quantised are the linear layers of the
blocks; the caption projection, the AdaLN network and the first and last layer stay as they are.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from ctypes import c_int, c_long, c_void_p
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openltx.kernels.library import native, usable
from openltx.kernels.linear import Activation, Linear
from openltx.models.transformer import VideoTransformer

PANEL, ROWS = 64, 6  # of native/int8.c


class Int8Linear(nn.Module):
    """A quantised ``Linear``. Give it ``quantize_weight``'s result."""

    def __init__(
        self,
        weight: Int8[Tensor, "d c"],
        scale: Float[Tensor, "d"],
        bias: Float[Tensor, "d"] | None,
        activation: Activation = "none",
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.activation: Activation = activation
        padding = -self.out_features % PANEL
        bias = torch.zeros(self.out_features) if bias is None else bias.detach().float().cpu()
        self.register_buffer("scale", F.pad(scale, (0, padding)))
        self.register_buffer("bias", F.pad(bias, (0, padding)))
        self.packed = _supported() and self.in_features % 4 == 0
        if self.packed:
            self.register_buffer("weight", _pack(weight))
            self.register_buffer("weight_sum", F.pad(weight.sum(1, dtype=torch.float32), (0, padding)))
        else:
            self.register_buffer("weight", weight)

    def forward(self, x: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows d"]:
        if self.packed and usable(x):
            return self._compiled(x.contiguous())
        weight, scale, bias = (self.get_buffer(name) for name in ("weight", "scale", "bias"))
        assert not self.packed, "packed weights are for CPU tensors of float32 or bfloat16"
        d = self.out_features
        y = F.linear(fake_quantize(x.float()), weight.float() * scale[:d, None], bias[:d])
        y = F.gelu(y, approximate="tanh") if self.activation == "gelu" else y
        return y.to(x.dtype)

    def _compiled(self, x: Tensor) -> Tensor:
        library, kind = native(), c_int(x.dtype == torch.bfloat16)
        assert library is not None
        rows, k = x.numel() // self.in_features, self.in_features
        padded = -(-rows // ROWS) * ROWS
        q = torch.empty(padded, k, dtype=torch.uint8)
        step, zero = torch.empty(2, padded).unbind()
        pointers = map(_pointer, (x, q, step, zero))
        library.openltx_int8_quantize(*pointers, *map(c_long, (rows, padded, k)), kind)
        out = x.new_empty(*x.shape[:-1], self.out_features)
        names = ("weight", "scale", "weight_sum", "bias")
        pointers = map(_pointer, (q, step, zero, *(self.get_buffer(name) for name in names), out))
        gelu = c_int(self.activation == "gelu")
        library.openltx_int8_linear(*pointers, *map(c_long, (rows, k, self.out_features)), gelu, kind)
        return out


def quantize_weight(weight: Float[Tensor, "d c"]) -> tuple[Int8[Tensor, "d c"], Float[Tensor, "d"]]:
    """Symmetric eight bits per output channel: (w_q, s_w) with w ~ w_q s_w."""
    weight = weight.detach().float().cpu()
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def fake_quantize(x: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows c"]:
    """x rounded to the 256 values that its token can take."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    step = torch.where(high > low, (high - low) / 255, 1.0)
    zero = (-low / step).round()
    return ((x / step + zero + 0.5).floor().clamp(0, 255) - zero) * step


def quantize(transformer: VideoTransformer, cache: Path | None = None) -> VideoTransformer:
    """The linear layers of the blocks replaced, in place, by ``Int8Linear``; on the CPU.

    With ``cache`` the quantised weights are read from that safetensors file if it is there and whole, else written to
    it. Which file belongs to which weights is the caller's knowledge (a fingerprint in its name).
    """
    layers = dict(_linear_layers(transformer))
    stored = _read(cache, layers) if cache is not None else None
    if stored is None:
        stored = {}
        for name, layer in layers.items():
            stored[f"{name}.weight"], stored[f"{name}.scale"] = quantize_weight(layer.weight)
        if cache is not None:
            with contextlib.suppress(OSError):  # a full or read-only disk: the next start quantises again
                _write(stored, cache)
    for name, layer in layers.items():
        parent, _, last = name.rpartition(".")
        small = Int8Linear(stored[f"{name}.weight"], stored[f"{name}.scale"], layer.bias, layer.activation)
        setattr(transformer.get_submodule(parent), last, small)
    return transformer


def _linear_layers(transformer: VideoTransformer) -> Iterator[tuple[str, Linear]]:
    for name, module in transformer.named_modules():
        if isinstance(module, Linear) and name.startswith("transformer_blocks."):
            yield name, module


def _read(path: Path, layers: Mapping[str, Linear]) -> dict[str, Tensor] | None:
    try:
        stored = load_file(path)
    except (OSError, SafetensorError):
        return None
    shapes = {f"{name}.weight": layer.weight.shape for name, layer in layers.items()}
    whole = len(stored) == 2 * len(layers) and all(
        key in stored and stored[key].shape == shape for key, shape in shapes.items()
    )
    return stored if whole else None


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file(dict(tensors), temporary)
    temporary.replace(path)


def _supported() -> bool:
    library = native()
    return library is not None and hasattr(library, "openltx_int8_linear")


def _pack(weight: Int8[Tensor, "d c"]) -> Int8[Tensor, "panels words panel four"]:
    library = native()
    assert library is not None
    d, c = weight.shape
    packed = torch.empty(-(-d // PANEL), c // 4, PANEL, 4, dtype=torch.int8)
    weight = weight.contiguous()
    library.openltx_int8_pack(_pointer(weight), _pointer(packed), c_long(d), c_long(c))
    return packed


def _pointer(x: Tensor) -> c_void_p:
    return c_void_p(x.data_ptr())
