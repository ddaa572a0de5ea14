"""Latent upsamplers in files: the official single file and the diffusers folder, in; the official single file, out.

    metadata "config"   {"_class_name": "LatentUpsampler", "in_channels": 128, ...}: flat, without sections
    tensors             initial_conv.weight, res_blocks.0.conv1.weight, ...: without a prefix

Diffusers has the same names for tensors and settings, in a folder ``latent_upsampler/``. A file without a config is
recognised by its tensors.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch

from openltx.checkpoints import diffusers
from openltx.checkpoints.config import Json, Shapes
from openltx.checkpoints.header import Header, StoredTensor, read_header
from openltx.checkpoints.single_file import FileReport, header_config, some, write_tensors
from openltx.errors import CheckpointError
from openltx.models.upsampler import LatentUpsampler, UpsamplerConfig

ANCHOR = "initial_conv.weight"


def upsampler_source(path: Path) -> tuple[UpsamplerConfig, dict[str, StoredTensor]]:
    """Configuration and tensors of a single file or a folder; raises ``CheckpointError`` if it holds no upsampler."""
    if path.is_dir():
        config, tensors = diffusers.upsampler_source(path)
        return upsampler_config(config), tensors
    header = read_header(path)
    if ANCHOR not in header.tensors:
        raise CheckpointError(_absent(header))
    config = header_config(header)
    shapes = {name: stored.shape for name, stored in header.tensors.items()}
    return (upsampler_config(config) if config else sniff_upsampler(shapes)), header.tensors


def upsampler_config(official: Json) -> UpsamplerConfig:
    """Our configuration of an official flat config, or of diffusers' config.json; absent keys are the spatial one's.

    Raises ``CheckpointError`` by name of the key; keys that openltx does not know warn.
    """
    known = {field.name: field.default for field in fields(UpsamplerConfig)}
    unknown = [key for key in official if key not in known and not key.startswith("_")]
    if unknown:
        warnings.warn(f"Keys of the upsampler config that openltx does not know: {', '.join(unknown)}.", stacklevel=2)
    given = {key: value for key, value in official.items() if key in known}
    for key, value in given.items():
        kind = type(known[key])
        if type(value) is not kind:
            raise CheckpointError(f"The upsampler config says {key}={value!r}; it must be {_WANTED[kind]}.")
    return UpsamplerConfig(**given)


def official_upsampler(config: UpsamplerConfig) -> Json:
    """The official flat config of our configuration."""
    return {"_class_name": "LatentUpsampler", **asdict(config)}


def sniff_upsampler(shapes: Shapes) -> UpsamplerConfig:
    """The upsampler with these tensors, for files whose header has no config."""
    enlargement = shapes.get("upsampler.0.weight", (0, 1))
    width, channels, *kernel = shapes[ANCHOR]
    factor = enlargement[0] // enlargement[1]
    if factor not in _ENLARGEMENTS:
        raise CheckpointError(
            "The file's header has no config, and its tensors do not tell what the upsampler enlarges: "
            f'"upsampler.0.weight" has {factor} times the channels, not 2 (time), 4 (space) or 8 (both).'
        )
    spatial, temporal = _ENLARGEMENTS[factor]
    blocks = {name.split(".")[1] for name in shapes if name.startswith("res_blocks.")}
    return UpsamplerConfig(
        in_channels=channels,
        mid_channels=width,
        num_blocks_per_stage=len(blocks),
        dims=2 if len(kernel) == 2 else 3,
        spatial_upsample=spatial,
        temporal_upsample=temporal,
    )


def save_upsampler(
    path: str | Path,
    upsampler: LatentUpsampler,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write the official single file, all of it or nothing; raises ``CheckpointError`` if it cannot be written."""
    config = json.dumps(official_upsampler(upsampler.config))
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in upsampler.state_dict().items()}
    write_tensors(Path(path), tensors, {"format": "pt", **(metadata or {}), "config": config})


def upsampler_in(report: FileReport) -> UpsamplerConfig | None:
    """The upsampler that an inspected file holds, or None if it holds something else."""
    shapes = {tensor.name: tensor.shape for tensor in report.tensors}
    if ANCHOR not in shapes or "upsampler.0.weight" not in shapes:
        return None
    return upsampler_config(report.config) if report.config else sniff_upsampler(shapes)


def _absent(header: Header) -> str:
    return (
        f"{header.path} holds no latent upsampler: {ANCHOR} is not among its {len(header.tensors)} tensors "
        f"({some(sorted(header.tensors))}). Give an LTX-Video upscaler file, for example "
        "ltxv-spatial-upscaler-0.9.8.safetensors."
    )


_WANTED = {bool: "true or false", int: "a whole number"}

# channels of the enlarging convolution over the width -> (spatial, temporal)
_ENLARGEMENTS = {2: (False, True), 4: (True, False), 8: (True, True)}
