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
from openltx.checkpoints.completeness import described_module
from openltx.checkpoints.config import allowed_times, is_causal_release, schedule_from_official
from openltx.checkpoints.fingerprint import known_sha256
from openltx.checkpoints.header import Header, StoredTensor, naming, read_header
from openltx.checkpoints.releases import RELEASES, Release
from openltx.checkpoints.text import load_text_encoder
from openltx.checkpoints.upsampler import upsampler_source
from openltx.checkpoints.values import require_formats
from openltx.checkpoints.weights import DTYPES, Weights, fill
from openltx.checkpoints.zoo import find_release, names_a_path, release_of, require_local
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.bundle import LTXModel
from openltx.models.text import TextEncoder
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.upsampler import LatentUpsampler
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder

Device = torch.device | str | None
Network = TypeVar("Network", bound=nn.Module)
Fill = Callable[[nn.Module, Weights], None]
"""Gives a module on the meta device its tensors, or arranges that it gets them later."""

BUNDLED = ("playroom",)


def load_bundle(
    name: str | Path,
    dtype: torch.dtype | None = None,
    device: Device = None,
    recipe: str | None = None,
    fill: Fill = fill,
) -> LTXModel:
    """A whole model by name ("playroom", or a release that was pulled), or from the path of a single file or folder.

    ``dtype`` None keeps the weights as they are stored. The text encoder stays in float32. A released file is sampled
    as its release, which its name tells; ``recipe`` names a release for a file of another name. ``fill`` is called with
    the transformer and with the VAE.
    """
    path = _locate(name)
    transformer_config, transformer_tensors = _transformer_source(path)
    vae_config, vae_tensors = _vae_source(path)
    _require_matching(path, transformer_config, vae_config)
    header = diffusers.kept_header(path) if path.is_dir() else read_header(path)
    transformer = described_module(VideoTransformer, transformer_config, path, transformer_tensors)
    vae = described_module(VideoAutoencoder, vae_config, path, vae_tensors)
    with naming(path):
        schedule, sampling = schedule_of(path, header, vae_config), _stated(header, name, recipe)
        times = allowed_times({} if header is None else single_file.header_config(header))
    return LTXModel(
        name=_shown_name(name, path),
        transformer=_filled(transformer, path, transformer_tensors, dtype, device, fill),
        vae=_filled(vae, path, vae_tensors, dtype, device, fill),
        text=_text_encoder(header, transformer_config, device),
        schedule=schedule,
        allowed_times=times,
        sampling=sampling,
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


def describe(name: str | Path, recipe: str | None = None) -> Description:
    """A model from its headers alone, checked as ``load_bundle`` checks them; arguments as there."""
    path = _locate(name)
    transformer_config, tensors = _transformer_source(path)
    vae_config, vae_tensors = _vae_source(path)
    _require_matching(path, transformer_config, vae_config)
    described_module(VideoTransformer, transformer_config, path, tensors)
    described_module(VideoAutoencoder, vae_config, path, vae_tensors)
    header = diffusers.kept_header(path) if path.is_dir() else read_header(path)
    with naming(path):
        schedule, sampling = schedule_of(path, header, vae_config), _stated(header, name, recipe)
    return Description(
        name=_shown_name(name, path),
        transformer=transformer_config,
        vae=vae_config,
        schedule=schedule,
        sampling=sampling,
        stored=DTYPES.get(large.dtype) if (large := tensors.get("transformer_blocks.0.ff.net.2.weight")) else None,
    )


def load_transformer(name: str | Path, dtype: torch.dtype | None = None, device: Device = None) -> VideoTransformer:
    """The transformer of a model, named as for ``load_bundle``, as ``dtype`` (None: as stored)."""
    path = _locate(name)
    config, tensors = _transformer_source(path)
    return _filled(described_module(VideoTransformer, config, path, tensors), path, tensors, dtype, device)


def load_vae(name: str | Path, dtype: torch.dtype | None = None, device: Device = None) -> VideoAutoencoder:
    """The Video-VAE of a model, named as for ``load_bundle``, as ``dtype`` (None: as stored)."""
    path = _locate(name)
    config, tensors = _vae_source(path)
    return _filled(described_module(VideoAutoencoder, config, path, tensors), path, tensors, dtype, device)


def linear_shapes_of(name: str | Path) -> dict[str, tuple[int, ...]]:
    """(outputs, inputs) of the transformer's linear layers by name, from a model's header alone."""
    _, tensors = _transformer_source(_locate(name))
    weights = {name: stored.shape for name, stored in tensors.items() if name.endswith(".weight")}
    return {name.removesuffix(".weight"): shape for name, shape in weights.items() if len(shape) == 2}


def load_upsampler(path: str | Path, dtype: torch.dtype | None = None, device: Device = None) -> LatentUpsampler:
    """A latent upsampler from its official single file or a diffusers folder, as ``dtype`` (None: as stored)."""
    path = Path(path)
    config, tensors = upsampler_source(path)
    return _filled(described_module(LatentUpsampler, config, path, tensors), path, tensors, dtype, device)


def _transformer_source(path: Path) -> tuple[TransformerConfig, dict[str, StoredTensor]]:
    with naming(path):
        if path.is_dir():
            return diffusers.transformer_source(path)
        return single_file.transformer_source(read_header(path))


def _vae_source(path: Path) -> tuple[VAEConfig, dict[str, StoredTensor]]:
    with naming(path):
        return diffusers.vae_source(path) if path.is_dir() else single_file.vae_source(read_header(path))


def _filled(
    module: Network,
    path: Path,
    stored: Mapping[str, StoredTensor],
    dtype: torch.dtype | None,
    device: Device,
    fill: Fill = fill,
) -> Network:
    """A module that is on the meta device, with the ``stored`` tensors, in evaluation mode."""
    require_formats(path, stored, dtype)
    fill(module, Weights(stored=stored, dtype=dtype, device=device))
    return module.eval()


def _require_matching(path: Path, transformer: TransformerConfig, vae: VAEConfig) -> None:
    if transformer.in_channels != vae.latent_channels:
        raise CheckpointError(
            f"The two networks of {path} do not fit: the transformer takes {transformer.in_channels} channels and the "
            f"VAE's latents have {vae.latent_channels}."
        )


def _locate(name: str | Path) -> Path:
    """The file or folder of a bundled name, of a release that was pulled, or of a path."""
    if name in BUNDLED:
        path = Path(str(resources.files("openltx") / "bundled" / str(name) / f"{name}.safetensors"))
        if not path.is_file():
            raise CheckpointError(
                f'The weights of the bundled model "{name}" are not installed ({path} is missing). Install openltx '
                "from its wheel or a full checkout, or train them with runs/playroom.sh."
            )
        return path
    if names_a_path(name):
        return Path(name)
    if release_of(name) is not None:
        return require_local(find_release(str(name), "model"))
    models = (*BUNDLED, *(release.name for release in RELEASES.values() if release.kind == "model"))
    near = difflib.get_close_matches(str(name), models, n=1)
    raise CheckpointError(
        f'There is no model "{name}".{f" Did you mean {near[0]}?" if near else ""} Possible: {", ".join(models)}, '
        "the path of an LTX-Video .safetensors file, or of a diffusers folder."
    )


def _shown_name(name: str | Path, path: Path) -> str:
    """What a video calls the model that made it."""
    if not names_a_path(name):
        return str(name)
    return path.name if path.is_dir() else path.stem


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


def schedule_of(path: Path, header: Header | None, vae: VAEConfig) -> Schedule:
    """The schedule that a file states, else that of the release with this VAE."""
    section = {} if header is None else single_file.header_config(header).get("scheduler")
    stated = schedule_from_official(section) if section else None
    if stated is None and path.is_dir():
        stated = diffusers.schedule(path)
    if stated is not None:
        return stated
    if is_causal_release(vae):
        return Schedule(kind="linear_quadratic")
    return Schedule(kind="uniform", shift="tokens", terminal=0.1)


def _stated(header: Header | None, name: str | Path, recipe: str | None) -> dict[str, Any]:
    """The sampling settings of the recipe that was asked for, else the file's own, else those of its release."""
    if recipe is not None:
        return dict(find_release(recipe, "model").sampling)
    return _sampling(header, release_of(name))


def _sampling(header: Header | None, release: Release | None) -> dict[str, Any]:
    """The file's default sampling settings, as it or its release states them: who samples knows which there are."""
    text = header.metadata.get("openltx.sampling", "{}") if header is not None else "{}"
    try:
        sampling = json.loads(text)
    except ValueError:
        sampling = None
    if not isinstance(sampling, dict):
        raise CheckpointError(f'The file\'s "openltx.sampling" entry is not a JSON object: {text!r}.')
    return {**(release.sampling if release is not None else {}), **sampling}


def _fingerprint(files: Iterable[Path]) -> str:
    """Sixteen digits for the weights of one file or of several."""
    hashes = [known_sha256(path) for path in sorted(set(files))]
    return (hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest())[:16]
