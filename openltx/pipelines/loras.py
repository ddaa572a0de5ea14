"""LoRAs for a loaded model: what the user writes becomes files and strengths, and the model carries them.

An in-context LoRA (depth, poses, edges, details) is put on like any other, and the request gives it a clip to look at:
``reference``.
"""

import hashlib
import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from openltx.checkpoints.load import linear_shapes_of
from openltx.checkpoints.lora import load_lora
from openltx.errors import RequestError
from openltx.models.bundle import LTXModel
from openltx.models.lora import Undo, UsedLoRA, Weighted, apply, is_mergeable, merge, require_fit

LoRAMode = Literal["auto", "merged", "applied"]
LoRAWish = str | Path | tuple[str | Path, float]
"""A file, "FILE:STRENGTH", or a pair of both."""


def read_loras(wishes: Sequence[LoRAWish], model: str | Path) -> Weighted:
    """The LoRAs that the user names, checked against the model's header: before the model itself is loaded.

    Raises ``RequestError`` for an impossible strength, ``CheckpointError`` for a file that is no LoRA for this model.
    """
    if not all(isinstance(wish, str | Path | tuple) for wish in wishes) or isinstance(wishes, str):
        raise RequestError(f"loras={wishes!r} is no list of LoRAs. Write loras=[FILE, (FILE, 0.7)], also for one.")
    files = [parse_lora(wish) for wish in wishes]
    loras = [(load_lora(path), strength) for path, strength in files]
    shapes = linear_shapes_of(model) if loras else {}
    for lora, _ in loras:
        require_fit(lora, shapes)
    return loras


def put_on(model: LTXModel, loras: Weighted, mode: LoRAMode = "auto") -> tuple[LTXModel, Undo]:
    """The model with the LoRAs, and a function that takes them off its transformer again, bit for bit.

    The transformer is changed in place. "merged" changes its weights (see ``models.lora.merge`` for what keeping the
    function costs), "applied" works beside them; "auto" merges if the weights are in memory and have more than eight
    bits. Raises as ``merge`` and ``apply`` do.
    """
    merged = mode == "merged" or (mode == "auto" and is_mergeable(model.transformer))
    undo = (merge if merged else apply)(model.transformer, loras)
    for lora, _ in loras:
        factor = lora.metadata.get(_DOWNSCALE, "1")
        if factor not in ("1", "1.0"):
            warnings.warn(
                f"{lora.name} was trained with references {factor} times smaller than the video; openltx gives them "
                "at full size.",
                stacklevel=2,
            )
    used = tuple(UsedLoRA(name=lora.name, fingerprint=lora.fingerprint, strength=s) for lora, s in loras)
    return replace(model, loras=(*model.loras, *used)), undo


def parse_lora(wish: LoRAWish) -> tuple[Path, float]:
    """Path and strength of a LoRA; raises ``RequestError`` for a strength that is no number."""
    if isinstance(wish, tuple):
        path, strength = wish
    else:
        match = re.fullmatch(r"(.+\.safetensors):(.*)", str(wish))
        path, strength = (match[1], match[2]) if match and not Path(wish).exists() else (wish, 1.0)
    try:
        number = float(strength)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(
            f"The LoRA {path} is to have the strength {strength!r}, which is no number. Write FILE:STRENGTH, for "
            "example style.safetensors:0.8; 1 is as it was trained, negative numbers lead away from it."
        )
    return Path(path), number


def weights_key(model: LTXModel) -> str:
    """A name for the model's weights with what was merged into them, to keep what is computed from them."""
    name = f"{model.name}-{model.fingerprint}"
    if not model.loras:
        return name
    digest = hashlib.sha256(json.dumps([(lora.fingerprint, lora.strength) for lora in model.loras]).encode())
    return f"{name}-{digest.hexdigest()[:16]}"


_DOWNSCALE = "reference_downscale_factor"
