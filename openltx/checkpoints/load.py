"""Weights to modules, strictly: every tensor of the file is used, every tensor of the module comes from the file.

A module is built on the meta device from the configuration in the file and gets the file's tensors assigned, so
nothing is initialised twice and nothing stays on meta. Any official single file, with or without prefixes, and any
diffusers folder goes through the same check. Raises ``CheckpointError``.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from openltx.checkpoints import diffusers, single_file
from openltx.checkpoints.config import is_causal_release, schedule_from_official
from openltx.checkpoints.fingerprint import known_sha256
from openltx.checkpoints.header import Header, StoredTensor, read_header
from openltx.checkpoints.text import load_text_encoder
from openltx.checkpoints.weights import DTYPES, Weights, fill
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.bundle import LTXModel
from openltx.models.text import TextEncoder
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder

Device = torch.device | str | None
Network = TypeVar("Network", bound=nn.Module)
Fill = Callable[[nn.Module, Weights], None]
"""Gives a module on the meta device its tensors, or arranges that it gets them later."""

BUNDLED = ("playroom",)


def load_bundle(
    name: str | Path, dtype: torch.dtype | None = None, device: Device = None, fill: Fill = fill
) -> LTXModel:
    """A whole model by name ("playroom"), or from a single file or diffusers folder of that path.

    ``dtype`` None keeps the weights as they are stored. The text encoder stays in float32. ``fill`` is called with the
    transformer and with the VAE.
    """
    path = _locate(name)
    transformer_config, transformer_tensors = _transformer_source(path)
    vae_config, vae_tensors = _vae_source(path)
    _require_matching(path, transformer_config, vae_config)
    header = None if path.is_dir() else read_header(path)
    return LTXModel(
        name=_name(name, path),
        transformer=_build(VideoTransformer, transformer_config, path, transformer_tensors, dtype, device, fill),
        vae=_build(VideoAutoencoder, vae_config, path, vae_tensors, dtype, device, fill),
        text=_text_encoder(header, transformer_config, device),
        schedule=_schedule(path, header, vae_config),
        sampling=_sampling(header),
        fingerprint=_fingerprint(stored.file for stored in (*transformer_tensors.values(), *vae_tensors.values())),
    )


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of a model before its weights are read.

    stored   the type of the transformer's large matrices in the file; None if it is not known or not torch's
    """

    name: str
    transformer: TransformerConfig
    vae: VAEConfig
    schedule: Schedule
    sampling: dict[str, Any]
    stored: torch.dtype | None


def describe(name: str | Path) -> Description:
    """A model by name or path, from its headers alone."""
    path = _locate(name)
    transformer_config, tensors = _transformer_source(path)
    vae_config, _ = _vae_source(path)
    header = None if path.is_dir() else read_header(path)
    return Description(
        name=_name(name, path),
        transformer=transformer_config,
        vae=vae_config,
        schedule=_schedule(path, header, vae_config),
        sampling=_sampling(header),
        stored=DTYPES.get(large.dtype) if (large := tensors.get("transformer_blocks.0.ff.net.2.weight")) else None,
    )


def load_transformer(path: str | Path, dtype: torch.dtype | None = None, device: Device = None) -> VideoTransformer:
    """The transformer of an official single file or a diffusers folder, as ``dtype`` (None: as stored)."""
    path = Path(path)
    config, tensors = _transformer_source(path)
    return _build(VideoTransformer, config, path, tensors, dtype, device)


def load_vae(path: str | Path, dtype: torch.dtype | None = None, device: Device = None) -> VideoAutoencoder:
    """The Video-VAE of an official single file or a diffusers folder, as ``dtype`` (None: as stored)."""
    path = Path(path)
    config, tensors = _vae_source(path)
    return _build(VideoAutoencoder, config, path, tensors, dtype, device)


def _transformer_source(path: Path) -> tuple[TransformerConfig, dict[str, StoredTensor]]:
    return diffusers.transformer_source(path) if path.is_dir() else single_file.transformer_source(read_header(path))


def _vae_source(path: Path) -> tuple[VAEConfig, dict[str, StoredTensor]]:
    return diffusers.vae_source(path) if path.is_dir() else single_file.vae_source(read_header(path))


def _build(
    kind: type[Network],
    config: TransformerConfig | VAEConfig,
    path: Path,
    stored: Mapping[str, StoredTensor],
    dtype: torch.dtype | None,
    device: Device,
    fill: Fill = fill,
) -> Network:
    """The module of ``config`` with exactly the ``stored`` tensors, in evaluation mode."""
    with torch.device("meta"):
        module = kind(config)
    _require_same(path, module, stored)
    if dtype is None and any(tensor.dtype.startswith("F8") for tensor in stored.values()):
        raise CheckpointError(
            f"{path} stores weights in 8-bit floats, in which nothing can be computed here. Say what to convert them "
            "to, for example dtype=torch.bfloat16."
        )
    fill(module, Weights(stored=stored, dtype=dtype, device=device))
    return module.eval()


def _require_same(path: Path, module: nn.Module, stored: Mapping[str, StoredTensor]) -> None:
    """Raise unless names and shapes are those of the module."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [name for name in expected if name not in stored]
    unexpected = [name for name in stored if name not in expected]
    shapes = [
        f"{name} {list(stored[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = [
        f"{len(names)} {what}: {single_file.some(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"The tensors of {path} are not those of the {type(module).__name__} that it describes. "
            f"{'; '.join(problems)}. The file is of another model, or was changed since it was published."
        )


def _require_matching(path: Path, transformer: TransformerConfig, vae: VAEConfig) -> None:
    if transformer.in_channels != vae.latent_channels:
        raise CheckpointError(
            f"The two networks of {path} do not fit: the transformer takes {transformer.in_channels} channels and the "
            f"VAE's latents have {vae.latent_channels}."
        )


def _locate(name: str | Path) -> Path:
    """The file or folder of a bundled name or a path."""
    if name in BUNDLED:
        path = Path(str(resources.files("openltx") / "bundled" / str(name) / f"{name}.safetensors"))
        if not path.is_file():
            raise CheckpointError(
                f'The weights of the bundled model "{name}" are not installed ({path} is missing). Install openltx '
                "from its wheel or a full checkout, or train them with runs/playroom.sh."
            )
        return path
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    near = difflib.get_close_matches(str(name), BUNDLED, n=1)
    raise CheckpointError(
        f'There is no model "{name}".{f" Did you mean {near[0]}?" if near else ""} Possible: {", ".join(BUNDLED)}, '
        "the path of an LTX-Video .safetensors file, or of a diffusers folder."
    )


def _text_encoder(header: Header | None, config: TransformerConfig, device: Device) -> TextEncoder | None:
    name = header.metadata.get("openltx.text_encoder") if header is not None else None
    if name is None:
        return None
    encoder = load_text_encoder(name, device or "cpu")
    if encoder.channels != config.caption_channels:
        raise CheckpointError(
            f"The file names the text encoder {name}, {encoder.channels} channels wide, but its transformer reads "
            f"captions of {config.caption_channels} channels."
        )
    return encoder


def _schedule(path: Path, header: Header | None, vae: VAEConfig) -> Schedule:
    """The file's own schedule, else that of the release with this VAE."""
    if header is None:
        stated = diffusers.schedule(path)
    else:
        section = single_file.header_config(header).get("scheduler")
        stated = schedule_from_official(section) if section else None
    if stated is not None:
        return stated
    if is_causal_release(vae):
        return Schedule(kind="linear_quadratic")
    return Schedule(kind="uniform", shift="tokens", terminal=0.1)


def _sampling(header: Header | None) -> dict[str, Any]:
    """The file's default sampling settings, as it states them: who samples knows which there are."""
    text = header.metadata.get("openltx.sampling", "{}") if header is not None else "{}"
    try:
        sampling = json.loads(text)
    except ValueError:
        sampling = None
    if not isinstance(sampling, dict):
        raise CheckpointError(f'The file\'s "openltx.sampling" entry is not a JSON object: {text!r}.')
    return sampling


def _fingerprint(files: Iterable[Path]) -> str:
    """Sixteen digits for the weights of one file or of several."""
    hashes = [known_sha256(path) for path in sorted(set(files))]
    return (hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest())[:16]


def _name(asked: str | Path, path: Path) -> str:
    return str(asked) if asked in BUNDLED else path.stem
