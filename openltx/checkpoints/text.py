"""Text encoders by name, from the weights that are installed with the package.

The bundled file is int8: a matrix is stored as ``key`` (rows x columns, int8) beside ``key.scale`` (rows x groups,
float16), one scale for each group of neighbouring columns, and is expanded to float32 on load; biases, norms and
positions are float32 in the file. Both files must have the hash they were made with: a transformer trained on one set
of token states is worth little on another.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import files

import safetensors.torch
import torch
from einops import rearrange
from jaxtyping import Float, Float16, Int8
from torch import Tensor

from openltx.errors import AssetError, CheckpointError
from openltx.models.text import MiniLM, MiniLMConfig, MiniLMEncoder, TextEncoder

MINILM = "all-MiniLM-L6-v2"
SCALE_SUFFIX = ".scale"

_MINILM_SHA256 = {
    "weights.safetensors": "8ab5740685ec51c94a5844a0ea2f589aefd4f1ac494867e746d818546e563bba",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def load_text_encoder(name: str, device: torch.device | str = "cpu") -> TextEncoder:
    """The text encoder that a checkpoint calls ``name``, frozen, in float32, on ``device``.

    Raises ``CheckpointError`` for an unknown name and ``AssetError`` if a bundled file is missing or altered.
    """
    if name != MINILM:
        raise CheckpointError(f'There is no text encoder called "{name}". Known: "{MINILM}".')
    with torch.device("meta"):
        model = MiniLM(MiniLMConfig())
    packed = safetensors.torch.load(_read_bundled("weights.safetensors"))
    model.load_state_dict(dequantise_all(packed), strict=True, assign=True)
    return MiniLMEncoder(name, model, _tokenizer(_read_bundled("tokenizer.json"))).to(device)


def dequantise_all(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in float32 from one whose matrices are int8 with a ``.scale`` beside them."""
    return {
        key: dequantise(value, packed[key + SCALE_SUFFIX]) if value.dtype == torch.int8 else value.float()
        for key, value in packed.items()
        if not key.endswith(SCALE_SUFFIX)
    }


def quantise(
    matrix: Float[Tensor, "rows columns"], group: int
) -> tuple[Int8[Tensor, "rows columns"], Float16[Tensor, "rows groups"]]:
    """Symmetric int8 with one float16 scale for every ``group`` neighbouring columns of a row."""
    grouped = rearrange(matrix.float(), "rows (groups group) -> rows groups group", group=group)
    smallest = torch.finfo(torch.float16).tiny  # a group of zeros needs a scale as well
    scale = (grouped.abs().amax(-1) / 127).clamp(min=smallest).half()
    integers = (grouped / scale.float()[..., None]).round().clamp(-127, 127).to(torch.int8)
    return rearrange(integers, "rows groups group -> rows (groups group)"), scale


def dequantise(
    integers: Int8[Tensor, "rows columns"], scale: Float16[Tensor, "rows groups"]
) -> Float[Tensor, "rows columns"]:
    """The float32 matrix that ``quantise`` stored, up to its rounding."""
    grouped = rearrange(integers, "rows (groups group) -> rows groups group", groups=scale.shape[1])
    return rearrange(grouped.float() * scale.float()[..., None], "rows groups group -> rows (groups group)")


def _read_bundled(file_name: str) -> bytes:
    file = files("openltx") / "bundled" / "minilm" / file_name
    repair = "The installation is incomplete or altered; install openltx again."
    try:
        data = file.read_bytes()
    except OSError as error:
        raise AssetError(f"The bundled text encoder's {file_name} cannot be read ({error}). {repair}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != _MINILM_SHA256[file_name]:
        raise AssetError(
            f"The bundled text encoder's {file_name} has sha256 {found}, not {_MINILM_SHA256[file_name]}. {repair}"
        )
    return data


def _tokenizer(data: bytes):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(data)
    tokenizer.no_truncation()  # the file asks for both; here too long is an error, and the encoder pads
    tokenizer.no_padding()

    def tokenize(prompts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]

    return tokenize
