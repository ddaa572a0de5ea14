"""Where a model lives: device, number format and residency are chosen here, once, and never inside a pipeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from openltx.cache import cache_folder
from openltx.checkpoints.load import Description, load_bundle
from openltx.errors import RequestError
from openltx.kernels.library import computes_in_bfloat16
from openltx.kernels.volume import lay_out_kernels
from openltx.models.bundle import LTXModel
from openltx.models.int8 import quantize
from openltx.models.transformer import VideoTransformer
from openltx.pipelines.fitting import require_room
from openltx.pipelines.loras import LoRAMode, LoRAWish, put_on, read_loras, weights_key
from openltx.pipelines.machines import available_memory
from openltx.pipelines.plan import Placement, Residency
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.texts import find_encoder, with_encoder
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
    loras: Sequence[LoRAWish] = (),
    lora_mode: LoRAMode = "auto",
    text_encoder: str | Path | None = None,
    tokenizer: str | Path | None = None,
    recipe: str | None = None,
) -> LTXModel:
    """A model by name ("playroom", or a release that was pulled) or by the path of its weights, ready on ``device``.

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
    loras       LoRA files: "FILE", "FILE:STRENGTH", or pairs of both
    lora_mode   "merged" adds them to the weights, before these are quantised; "applied" computes them beside the
                weights; "auto" takes "applied" for int8, whose cache then serves every LoRA, and for weights
                that take turns, else "merged"
    text_encoder  the folder or file of a T5 v1.1 encoder (``checkpoints.t5``), for models that come without one; its
                  weights are read when a prompt is encoded that the cache does not know, and never held
    tokenizer     its tokenizer.json or spiece.model, if that is not beside it
    recipe      the release as which a file of another name is sampled ("ltxv-13b-0.9.8-distilled")

    Raises ``CheckpointError`` for an unknown or damaged model or LoRA, ``RequestError`` for what this machine does not
    have.
    """
    place = choose_device(device)
    require_precision(precision)
    if precision == "int8" and place.type != "cpu":
        raise RequestError(f'precision="int8" runs on the CPU only, not on "{place.type}". Use "bfloat16" or "auto".')
    if compile and place.type == "cpu":
        raise RequestError(
            "Compiling is for accelerators: on the CPU it would replace the built-in kernels. Leave it out."
        )
    dtype = dtype_of(precision, place)
    resident = residency == "resident"
    if not resident:
        _require_unchanged(residency, precision, compile, lora_mode)
    encoder = find_encoder(name, text_encoder, tokenizer, dtype, place)
    adapters = read_loras(loras, name)
    if resident:
        model = load_bundle(name, dtype=dtype, device=place, recipe=recipe)
    else:
        model = load_in_turns(name, dtype, place, streamed=residency == "streamed", recipe=recipe)
    if encoder is not None:
        model = with_encoder(model, encoder)
    if lora_mode == "merged":
        model, _ = put_on(model, adapters, lora_mode)
    if precision == "int8":
        quantize(model.transformer, cache_folder() / "int8" / f"{weights_key(model)}.safetensors")
    if lora_mode != "merged":
        model, _ = put_on(model, adapters, lora_mode)
    if resident:  # otherwise each part is laid out when its turn comes
        lay_out_kernels(model.vae)
    if compile:
        compile_blocks(model.transformer)
    return model


def _require_unchanged(residency: Residency, precision: Precision, compile: bool, lora_mode: LoRAMode) -> None:
    """Raise ``RequestError`` for what changes weights, where these come from the file again and again."""
    asked = {"compile": compile, 'precision="int8"': precision == "int8", 'lora_mode="merged"': lora_mode == "merged"}
    for wish in (wish for wish, is_asked in asked.items() if is_asked):
        instead = ' Or take lora_mode="applied".' if "lora" in wish else ""
        raise RequestError(
            f'{wish} changes weights that stay in memory: it goes with residency="resident", not "{residency}".'
            f"{instead}"
        )


def require_precision(precision: str) -> None:
    """Raise ``RequestError`` for a number format that is not offered."""
    if precision in get_args(Precision):
        return
    reason = " float16 overflows in this network: the videos turn out green or empty." if "16" in precision else ""
    raise RequestError(f'precision="{precision}" is not possible.{reason} Choose {", ".join(get_args(Precision))}.')


def compile_blocks(transformer: VideoTransformer, backend: str = "inductor") -> None:
    """Compile each block in place, as one graph; names in the state dict stay as they are."""
    for block in transformer.transformer_blocks:
        block.compile(fullgraph=True, backend=backend)


def require_room_for(
    model: Description, request: GenerationRequest, *, device: Device, precision: Precision, residency: Residency
) -> None:
    """Raise ``RequestError`` if a request does not fit into this machine's memory; its message says what would."""
    place = choose_device(device)
    require_room(model, request, placement_of(precision, place), residency, available_memory(place))


def placement_of(precision: Precision, place: torch.device) -> Placement:
    """What a plan needs to know of a precision on a device."""
    return Placement(dtype=dtype_of(precision, place), is_cpu=place.type == "cpu", int8=precision == "int8")


def dtype_of(precision: Precision, place: torch.device) -> torch.dtype:
    """What a precision computes in on ``place``, apart from eight-bit layers ("int8": the transformer's blocks)."""
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
