"""Folders in the diffusers layout: ``transformer/`` and ``vae/``, each a config.json and safetensors, whole or sharded.

Reading; ``checkpoints.diffusers_folder`` writes. The tensors get their official names through ``checkpoints.keys``; the
configs are translated here. What the layout has no place for (the three statistics that no model uses, the header of
the official file) lies beside the two folders in ``official.safetensors``, if the folder was made by openltx.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from openltx.checkpoints.config import Json, is_causal_release, parse_config
from openltx.checkpoints.header import Header, StoredTensor, naming, read_header
from openltx.checkpoints.keys import TRANSFORMER_TABLE, vae_table
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.transformer import TransformerConfig
from openltx.models.vae.autoencoder import Block, BlockKind, VAEConfig

Tensors = dict[str, StoredTensor]
Config = TypeVar("Config", TransformerConfig, VAEConfig)


def transformer_source(folder: Path) -> tuple[TransformerConfig, Tensors]:
    """Configuration and tensors (official names) of a folder's transformer.

    Whether positions are causal is not in diffusers' config: the kept official header tells, or else the VAE beside the
    transformer; without one they are, as in all releases since 0.9.5.
    """
    part = _part(folder, "transformer")
    config = _translated(transformer_config, part)
    kept, vae = kept_header(part.parent), part.parent / "vae"
    stated = parse_config(kept.metadata.get("config", "{}")).get("transformer") if kept is not None else None
    if stated is not None:
        config = replace(config, causal_positions=stated.get("causal_temporal_positioning") is True)
    elif (vae / "config.json").is_file():
        config = replace(config, causal_positions=is_causal_release(_translated(vae_config, vae)))
    return config, TRANSFORMER_TABLE.inverse.apply(_tensors(part))


def vae_source(folder: Path) -> tuple[VAEConfig, Tensors]:
    """Configuration and tensors (official names) of a folder's VAE."""
    part = _part(folder, "vae")
    config = _translated(vae_config, part)
    return config, vae_table(config).inverse.apply(_tensors(part))


def upsampler_source(folder: Path) -> tuple[Json, Tensors]:
    """The config.json and the tensors of a folder's latent upsampler; both have the official names."""
    part = _part(folder, "latent_upsampler")
    return _read_json(part / "config.json"), _tensors(part)


def kept_header(folder: Path) -> Header | None:
    """The header of the official file that a folder was made of, with the tensors that diffusers has no place for."""
    path = folder / KEPT
    return read_header(path) if path.is_file() else None


def schedule(folder: Path) -> Schedule | None:
    """The folder's inference schedule, or None if it has no ``scheduler/``.

    Diffusers shifts by token count where it says so (0.9.0, 0.9.1), and its pipeline supplies linear-quadratic times
    where it does not.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return None
    config = _read_json(path)
    if not config.get("use_dynamic_shifting"):
        return Schedule(kind="linear_quadratic", terminal=None)
    low, high = ("base_image_seq_len", "base_shift"), ("max_image_seq_len", "max_shift")
    for key in (*low, *high):
        if not isinstance(config.get(key), int | float):
            raise CheckpointError(f"{path} says {key}={config.get(key)!r}, which is no number.")
    return Schedule(
        kind="uniform",
        shift="tokens",
        shift_low=(config[low[0]], config[low[1]]),
        shift_high=(config[high[0]], config[high[1]]),
        terminal=config.get("shift_terminal"),
    )


def transformer_config(config: Json) -> TransformerConfig:
    """Our configuration of diffusers' ``transformer/config.json``."""
    _require("transformer", config, TRANSFORMER_FIXED)
    given = _TRANSFORMER_DEFAULTS | config
    _require_sizes("transformer", given, _TRANSFORMER_SIZES)
    ours = TransformerConfig(
        num_layers=given["num_layers"],
        num_heads=given["num_attention_heads"],
        head_dim=given["attention_head_dim"],
        caption_channels=given["caption_channels"],
        in_channels=given["in_channels"],
        out_channels=given["out_channels"] or given["in_channels"],
        norm_eps=given["norm_eps"],
    )
    if given["cross_attention_dim"] != ours.width:
        raise CheckpointError(
            f"The transformer config says cross_attention_dim={given['cross_attention_dim']} beside {ours.num_heads} "
            f"heads of {ours.head_dim}; openltx needs them to agree ({ours.width})."
        )
    return ours


def vae_config(config: Json) -> VAEConfig:
    """Our configuration of diffusers' ``vae/config.json``."""
    _require("vae", config, VAE_FIXED)
    given = _VAE_DEFAULTS | config
    _require_sizes("vae", given, _VAE_SIZES)
    return VAEConfig(
        encoder_blocks=_encoder_blocks(given),
        decoder_blocks=_decoder_blocks(given),
        latent_channels=given["latent_channels"],
        patch_size=given["patch_size"],
        encoder_base_channels=given["block_out_channels"][0],
        decoder_base_channels=given["decoder_block_out_channels"][0] // given["upsample_factor"][0],
        timestep_conditioning=given["timestep_conditioning"],
        causal_decoder=given["decoder_causal"],
    )


def _encoder_blocks(given: Json) -> tuple[Block, ...]:
    widths, layers = given["block_out_channels"], given["layers_per_block"]
    residual = given["down_block_types"][-1] == "LTXVideo095DownBlock3D"
    blocks = []
    for i, width in enumerate(widths[:-1] if residual else widths):
        wider = widths[min(i + 1, len(widths) - 1)]
        blocks.append(Block(kind="res_x", num_layers=layers[i]))
        scaled = given["spatio_temporal_scaling"][i]
        if residual and scaled:
            kind = _look_up("downsample_type", given["downsample_type"][i])
            blocks.append(Block(kind=kind, multiplier=wider // width))
        elif scaled:
            blocks.append(Block(kind="compress_all"))
        if not residual and wider != width:
            blocks.append(Block(kind="res_x_y", multiplier=wider // width))
    return (*blocks, Block(kind="res_x", num_layers=layers[-1]))


def _decoder_blocks(given: Json) -> tuple[Block, ...]:
    """Built from the latents outwards, as diffusers does, then listed from the output side, as we do."""
    widths, layers, noise = (
        given[key][::-1] for key in ("decoder_block_out_channels", "decoder_layers_per_block", "decoder_inject_noise")
    )
    scaled, residual, factors = (
        given[key][::-1] for key in ("decoder_spatio_temporal_scaling", "upsample_residual", "upsample_factor")
    )
    blocks = [Block(kind="res_x", num_layers=layers[0], inject_noise=noise[0])]
    width = widths[0]
    for i, out in enumerate(widths):
        entering, width = width // factors[i], out // factors[i]
        if entering != width:
            blocks.append(Block(kind="res_x_y", multiplier=entering // width, inject_noise=noise[i + 1]))
        if scaled[i]:
            blocks.append(Block(kind="compress_all", multiplier=factors[i], residual=residual[i]))
        blocks.append(Block(kind="res_x", num_layers=layers[i + 1], inject_noise=noise[i + 1]))
    return tuple(reversed(blocks))


def _look_up(key: str, value: str) -> BlockKind:
    if value not in DOWN_KINDS:
        raise CheckpointError(f"The vae config says {key}={value!r}; openltx knows {', '.join(DOWN_KINDS)}.")
    return DOWN_KINDS[value]


def _require(section: str, config: Json, fixed: Json) -> None:
    for key, only in fixed.items():
        if config.get(key, only) != only:
            raise CheckpointError(
                f"The {section} config says {key}={config[key]!r}; openltx builds {key}={only!r} only, which is what "
                "every release has."
            )


def _require_sizes(section: str, given: Json, keys: tuple[str, ...]) -> None:
    for key in keys:
        values = given[key] if isinstance(given[key], list | tuple) else [given[key]]
        if not all(isinstance(value, int) and value > 0 for value in values):
            raise CheckpointError(f"The {section} config says {key}={given[key]!r}: whole numbers above 0 are needed.")


def find_part(folder: Path, name: str) -> Path | None:
    """The sub-folder of a network ("transformer" or "vae"), or ``folder`` itself if it is that; else None."""
    for part in (folder / name, folder):
        if (part / "config.json").is_file() and _read_json(part / "config.json").get("_class_name") == CLASSES[name]:
            return part
    return None


def _part(folder: Path, name: str) -> Path:
    part = find_part(folder, name)
    if part is not None:
        return part
    raise CheckpointError(
        f"{folder} holds no {name} in the diffusers layout: {name}/config.json with _class_name {CLASSES[name]} is "
        f"missing. Give the folder that has {name}/ in it, or a .safetensors file."
    )


def _tensors(part: Path) -> Tensors:
    """The tensors of a network's folder: one file, or the shards that its index names."""
    index = part / f"{WEIGHTS}.index.json"
    if not index.is_file():
        return read_header(part / WEIGHTS).tensors
    where = _read_json(index).get("weight_map")
    if not isinstance(where, dict):
        raise CheckpointError(f'{index} has no "weight_map", which says in which file a tensor is.')
    for name, file in where.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} says that {name} is in {file!r}, which is not the name of a .safetensors file beside it. "
                "Nothing outside the folder is read: download the folder again."
            )
    shards = {file: read_header(part / file).tensors for file in sorted(set(where.values()))}
    for name, file in where.items():
        if name not in shards[file]:
            raise CheckpointError(f"{index} says that {name} is in {file}, and it is not. Download both again.")
    listed = {name for tensors in shards.values() for name in tensors}
    if listed != set(where):
        raise CheckpointError(f"The shards in {part} hold tensors that {index.name} does not list: download it again.")
    return {name: shards[file][name] for name, file in where.items()}


def _translated(translate: Callable[[Json], Config], part: Path) -> Config:
    """The configuration in a part's config.json; ``CheckpointError`` names the file if it makes no sense."""
    path = part / "config.json"
    with naming(path):
        try:
            return translate(_read_json(path))
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} makes no sense: {type(error).__name__} {error}.") from error


def _read_json(path: Path) -> Json:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return config


WEIGHTS = "diffusion_pytorch_model.safetensors"
KEPT = "official.safetensors"
CLASSES = {
    "transformer": "LTXVideoTransformer3DModel",
    "vae": "AutoencoderKLLTXVideo",
    "latent_upsampler": "LTXLatentUpsamplerModel",
}

DOWN_KINDS: dict[str, BlockKind] = {
    "conv": "compress_all",
    "spatial": "compress_space_res",
    "temporal": "compress_time_res",
    "spatiotemporal": "compress_all_res",
}

_TRANSFORMER_DEFAULTS: Json = {
    "in_channels": 128,
    "out_channels": 128,
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "cross_attention_dim": 2048,
    "num_layers": 28,
    "norm_eps": 1e-6,
    "caption_channels": 4096,
}
TRANSFORMER_FIXED: Json = {
    "patch_size": 1,
    "patch_size_t": 1,
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
    "attention_bias": True,
    "attention_out_bias": True,
}

_VAE_DEFAULTS: Json = {
    "latent_channels": 128,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["LTXVideoDownBlock3D"] * 4,
    "layers_per_block": [4, 3, 3, 3, 4],
    "spatio_temporal_scaling": [True, True, True, False],
    "downsample_type": ["conv"] * 4,
    "decoder_block_out_channels": [128, 256, 512, 512],
    "decoder_layers_per_block": [4, 3, 3, 3, 4],
    "decoder_spatio_temporal_scaling": [True, True, True, False],
    "decoder_inject_noise": [False] * 5,
    "upsample_residual": [False] * 4,
    "upsample_factor": [1] * 4,
    "timestep_conditioning": False,
    "patch_size": 4,
    "decoder_causal": False,
}
_TRANSFORMER_SIZES = (
    "in_channels", "num_attention_heads", "attention_head_dim", "cross_attention_dim", "num_layers", "caption_channels",
)  # fmt: skip
_VAE_SIZES = (
    "latent_channels", "patch_size", "block_out_channels", "layers_per_block", "decoder_block_out_channels",
    "decoder_layers_per_block", "upsample_factor",
)  # fmt: skip
VAE_FIXED: Json = {
    "in_channels": 3,
    "out_channels": 3,
    "patch_size_t": 1,
    "resnet_norm_eps": 1e-6,
    "scaling_factor": 1.0,
    "encoder_causal": True,
}
