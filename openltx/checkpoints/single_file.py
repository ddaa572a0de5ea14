"""Single safetensors files in the official layout: reading their description, and writing them.

    model.diffusion_model.*      the transformer
    vae.*                        the Video-VAE with its latent statistics
    metadata "config"            JSON of the architectures, see ``checkpoints.config``
    metadata "openltx.*"         our own keys: text encoder, world, sampling defaults

Files without the prefixes, or with one of the two networks only, are read as well. The VAE's latent statistics are
written in float32 whatever the weights are: they are few, and every latent passes through them.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from openltx.checkpoints.completeness import some
from openltx.checkpoints.config import (
    Json,
    is_causal_release,
    official_transformer,
    official_vae,
    parse_config,
    sniff_transformer,
    sniff_vae,
    transformer_config,
    vae_config,
)
from openltx.checkpoints.fingerprint import file_sha256
from openltx.checkpoints.header import Header, StoredTensor, naming, read_header
from openltx.checkpoints.keys import (
    TRANSFORMER_ANCHOR,
    TRANSFORMER_PREFIXES,
    UNUSED_VAE_TENSORS,
    VAE_ANCHOR,
    VAE_PREFIXES,
    find_prefix,
)
from openltx.checkpoints.recognise import kind_of, refuse_companions
from openltx.errors import CheckpointError
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder

Tensors = dict[str, StoredTensor]


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What ``openltx inspect`` shows of a checkpoint: what it is, its description, tensor table and hash."""

    path: Path
    kind: str
    config: Json
    metadata: dict[str, str]
    tensors: tuple[StoredTensor, ...]
    sha256: str

    @property
    def num_parameters(self) -> int:
        return sum(torch.Size(tensor.shape).numel() for tensor in self.tensors)


def inspect_file(path: str | Path) -> FileReport:
    """Describe any safetensors file without loading its tensors; raises ``CheckpointError`` if it is none."""
    header = read_header(Path(path))
    with naming(header.path):
        config = header_config(header)
    return FileReport(
        path=header.path,
        kind=kind_of(header.tensors) or "nothing that LTX-Video knows",
        config=config,
        metadata={key: value for key, value in header.metadata.items() if key != "config"},
        tensors=tuple(header.tensors.values()),
        sha256=file_sha256(header.path),
    )


def header_config(header: Header) -> Json:
    """The ``config`` entry of a header, empty if there is none."""
    return parse_config(header.metadata["config"]) if "config" in header.metadata else {}


def transformer_source(header: Header) -> tuple[TransformerConfig, Tensors]:
    """Configuration and tensors (official names, no prefix) of the file's transformer."""
    transformer, vae = split(header)
    if transformer is None:
        raise CheckpointError(_absent(header, "transformer", TRANSFORMER_ANCHOR, TRANSFORMER_PREFIXES))
    config = header_config(header)
    if "transformer" in config:
        return transformer_config(config["transformer"]), transformer
    causal = vae is None or is_causal_release(sniff_vae(_shapes(vae)))
    return sniff_transformer(_shapes(transformer), causal_positions=causal), transformer


def vae_source(header: Header) -> tuple[VAEConfig, Tensors]:
    """Configuration and tensors (official names, no prefix) of the file's VAE."""
    _, vae = split(header)
    if vae is None:
        raise CheckpointError(_absent(header, "VAE", VAE_ANCHOR, VAE_PREFIXES))
    config = header_config(header)
    return (vae_config(config["vae"]) if "vae" in config else sniff_vae(_shapes(vae))), vae


def split(header: Header) -> tuple[Tensors | None, Tensors | None]:
    """The file's transformer and VAE tensors without prefix; raises ``CheckpointError`` for tensors of neither."""
    refuse_companions(header)
    prefixes = (
        find_prefix(header.tensors, TRANSFORMER_PREFIXES, TRANSFORMER_ANCHOR),
        find_prefix(header.tensors, VAE_PREFIXES, VAE_ANCHOR),
    )
    parts: tuple[Tensors, Tensors] = ({}, {})
    strays = []
    for name, stored in header.tensors.items():
        owners = [i for i, prefix in enumerate(prefixes) if prefix is not None and name.startswith(prefix)]
        if not owners:
            strays.append(name)
            continue
        owner = max(owners, key=lambda i: len(prefixes[i] or ""))
        parts[owner][name.removeprefix(prefixes[owner] or "")] = stored
    if strays and any(prefix is not None for prefix in prefixes):
        raise CheckpointError(
            f"{header.path} has {len(strays)} tensors that belong to no transformer and no VAE: {some(strays)}. It "
            "was changed since it was published, or holds more than openltx can use."
        )
    transformer, vae = parts
    vae = {name: stored for name, stored in vae.items() if name not in UNUSED_VAE_TENSORS}
    return transformer or None, vae or None


def save_single_file(
    path: str | Path,
    transformer: VideoTransformer | None,
    vae: VideoAutoencoder | None,
    metadata: Mapping[str, str],
    scheduler: Json | None = None,
    dtype: torch.dtype = torch.bfloat16,
    allowed_times: Sequence[float] | None = None,
) -> None:
    """Write one file in the official layout, all of it or nothing.

    ``metadata`` are our own entries ("openltx.text_encoder", "openltx.sampling", ...), ``scheduler`` the official
    scheduler section (``config.official_schedule``), ``allowed_times`` those of a distilled transformer. Raises
    ``CheckpointError`` if the file cannot be written.
    """
    config: Json = {}
    tensors: dict[str, Tensor] = {}
    if transformer is not None:
        config["transformer"] = official_transformer(transformer.config)
        tensors |= _prepared(transformer, "model.diffusion_model.", dtype)
    if vae is not None:
        config["vae"] = official_vae(vae.config)
        tensors |= _prepared(vae, "vae.", dtype)
    if scheduler is not None:
        config["scheduler"] = scheduler
    if allowed_times is not None:
        config["allowed_inference_steps"] = list(allowed_times)
    write_tensors(Path(path), tensors, {"format": "pt", **metadata, "config": json.dumps(config)})


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """A safetensors file of ``tensors`` with ``header`` as its metadata, all of it or nothing."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:  # a full disk arrives as this, and not as an OSError
            raise OSError(str(error)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` at the end, and leaves no trace if anything fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(0o644)  # safetensors writes files that only their owner can read
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _prepared(module: nn.Module, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The module's tensors as they go to the file."""
    prepared = {}
    for name, tensor in module.state_dict().items():
        keep = torch.float32 if name.startswith("per_channel_statistics.") else dtype
        tensor = tensor.detach().to("cpu", keep if tensor.is_floating_point() else None).contiguous()
        shared = tensor.untyped_storage().nbytes() != tensor.nbytes  # safetensors refuses views of a larger storage
        prepared[prefix + name] = tensor.clone() if shared else tensor
    return prepared


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: stored.shape for name, stored in tensors.items()}


def _absent(header: Header, network: str, anchor: str, prefixes: tuple[str, ...]) -> str:
    tried = ", ".join(prefix + anchor for prefix in prefixes)
    return (
        f"{header.path} holds no LTX-Video {network}: none of {tried} is among its {len(header.tensors)} tensors "
        f"({some(sorted(header.tensors))}). Give an LTX-Video file, or check that its tensors were not renamed."
    )
