"""Where a model lives: device, number format and residency are chosen here, once, and never inside a pipeline."""

from pathlib import Path
from typing import Literal

import torch

from openltx.cache import cache_folder
from openltx.checkpoints.load import describe, load_bundle
from openltx.errors import RequestError
from openltx.kernels.library import computes_in_bfloat16
from openltx.kernels.volume import lay_out_kernels
from openltx.models.bundle import LTXModel
from openltx.models.int8 import quantize
from openltx.models.transformer import VideoTransformer
from openltx.pipelines.fitting import require_room
from openltx.pipelines.machines import available_memory
from openltx.pipelines.plan import Placement, Residency
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.turns import load_in_turns

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]


def load(
    name: str | Path = "playroom",
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    residency: Residency = "resident",
    compile: bool = False,
) -> LTXModel:
    """A model by name (the bundled "playroom") or by the path of its weight file, ready on ``device``.

    device      "auto" takes CUDA, else Apple's MPS, else the CPU
    precision   "auto" takes bfloat16 where the hardware computes in it (CUDA; processors with AVX-512 BF16, of which a
                C compiler must be there to make use), else float32. "int8" quantises the transformer's blocks
                (``models.int8``; CPU only), the rest as with "auto"; the result is kept in the cache
    residency   "resident" keeps all of it; "offloaded" has text encoder, transformer, the VAE's encoder and its decoder
                in memory one at a time; "streamed" moreover reads the transformer's blocks from the file one after the
                other, in every step. The numbers are the same (``pipelines.turns``)
    compile     let ``torch.compile`` fuse each block, in place: the first step of a new size waits for it;
                torch keeps the result in its own cache. For accelerators; on a CPU it would replace the kernels of
                ``openltx.kernels``, and is refused

    Raises ``CheckpointError`` for an unknown or damaged model, ``RequestError`` for what this machine does not have.
    """
    place = choose_device(device)
    if precision == "int8" and place.type != "cpu":
        raise RequestError(f'precision="int8" runs on the CPU only, not on "{place.type}". Use "bfloat16" or "auto".')
    if compile and place.type == "cpu":
        raise RequestError(
            "Compiling is for accelerators: on the CPU it would replace the built-in kernels. Leave it out."
        )
    dtype = dtype_of(precision, place)
    if residency != "resident":
        if compile or precision == "int8":
            asked = "compile" if compile else 'precision="int8"'
            raise RequestError(
                f'{asked} changes weights that stay in memory: it goes with residency="resident", not "{residency}".'
            )
        return load_in_turns(name, dtype, place, streamed=residency == "streamed")
    model = load_bundle(name, dtype=dtype, device=place)
    if precision == "int8":
        quantize(model.transformer, cache_folder() / "int8" / f"{model.name}-{model.fingerprint}.safetensors")
    lay_out_kernels(model.vae)
    if compile:
        compile_blocks(model.transformer)
    return model


def compile_blocks(transformer: VideoTransformer, backend: str = "inductor") -> None:
    """Compile each block in place, as one graph; names in the state dict stay as they are."""
    for block in transformer.transformer_blocks:
        block.compile(fullgraph=True, backend=backend)


def require_room_for(
    name: str | Path, request: GenerationRequest, *, device: Device, precision: Precision, residency: Residency
) -> None:
    """Raise ``RequestError`` if a request does not fit into this machine's memory; its message says what would."""
    place = choose_device(device)
    require_room(describe(name), request, placement_of(precision, place), residency, available_memory(place))


def placement_of(precision: Precision, place: torch.device) -> Placement:
    """What a plan needs to know of a precision on a device."""
    return Placement(dtype=dtype_of(precision, place), is_cpu=place.type == "cpu", int8=precision == "int8")


def dtype_of(precision: Precision, place: torch.device) -> torch.dtype:
    """The type of the weights ("int8" concerns the transformer's blocks only)."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(precision) or fast_dtype(place)


def fast_dtype(place: torch.device) -> torch.dtype:
    """bfloat16 where ``place`` computes in it, else float32."""
    fast = place.type == "cuda" or (place.type == "cpu" and computes_in_bfloat16())
    return torch.bfloat16 if fast else torch.float32


def choose_device(device: Device) -> torch.device:
    """The torch device for a name; raises ``RequestError`` if this machine does not have it."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[device]:
        there = ", ".join(name for name, here in available.items() if here)
        raise RequestError(f'Device "{device}" is not available here. Possible: {there}, or "auto".')
    return torch.device(device)
