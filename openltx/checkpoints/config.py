"""The ``config`` JSON of official single files, to our configurations and back; and a guess from tensors without it.

An official file describes itself in the safetensors header: ``{"transformer": {...}, "vae": {...}, "scheduler":
{...}}``. Every key that its loader knows is read: what our modules can be, they become; a value that they cannot be
is refused by name; a key that we do not know warns. What we write, the official loader reads.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, get_args

from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import TransformerConfig
from openltx.models.vae.autoencoder import Block, BlockKind, VAEConfig

Json = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


def parse_config(text: str) -> Json:
    """The header's ``config`` as a dict of dicts; raises ``CheckpointError`` if it is not that."""
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f'The "config" entry of the file\'s header is not JSON ({error}).') from error
    if not isinstance(config, dict):
        raise CheckpointError(f'The "config" entry of the file\'s header is a {type(config).__name__}, not an object.')
    for name in ("transformer", "vae", "scheduler"):
        if not isinstance(config.get(name, {}), dict):
            raise CheckpointError(f'The "{name}" section of the config in the file\'s header is not an object.')
    return config


def transformer_config(official: Json) -> TransformerConfig:
    """Our configuration of an official ``transformer`` section; raises ``CheckpointError`` by name of the key."""
    _refuse_others("transformer", official, _TRANSFORMER_FIXED, _TRANSFORMER_FREE | set(_TRANSFORMER_KEYS))
    stated = {"causal_temporal_positioning": False, **official}  # 0.9.0 and 0.9.1 do not mention it
    config = TransformerConfig(**_translate("transformer", stated, _TRANSFORMER_KEYS))
    if official.get("cross_attention_dim") not in (None, config.width):
        raise CheckpointError(
            f"The transformer config says cross_attention_dim={official['cross_attention_dim']} beside "
            f"{config.num_heads} heads of {config.head_dim}; openltx needs them to agree ({config.width})."
        )
    return config


def official_transformer(config: TransformerConfig) -> Json:
    """The official ``transformer`` section of our configuration; ``CheckpointError`` where it has no words for one."""
    if (config.qk_norm, config.text_attention) != ("rms", "cross"):
        raise CheckpointError(
            f"A transformer with qk_norm={config.qk_norm} and text_attention={config.text_attention} is for "
            "experiments only: the official layout cannot say so. Train one with the defaults to export it."
        )
    values = {key: _plain(getattr(config, ours)) for key, (ours, _) in _TRANSFORMER_KEYS.items()}
    values = {key: value for key, value in values.items() if key not in _OWN_KEYS or value != _default(key)}
    return {
        "_class_name": "Transformer3DModel",
        **_TRANSFORMER_FIXED,
        "num_embeds_ada_norm": 1000,
        "cross_attention_dim": config.width,
        **values,
    }


def vae_config(official: Json) -> VAEConfig:
    """Our configuration of an official ``vae`` section; raises ``CheckpointError`` by name of the key."""
    _refuse_others("vae", official, _VAE_FIXED, _VAE_FREE | set(_VAE_KEYS))
    settings: Json = {"timestep_conditioning": False, **_translate("vae", official, _VAE_KEYS)}
    return VAEConfig(
        encoder_blocks=_blocks(official, "encoder"),
        decoder_blocks=_blocks(official, "decoder"),
        **settings,
    )


def official_vae(config: VAEConfig) -> Json:
    """The official ``vae`` section of our configuration."""
    values = {key: _plain(getattr(config, ours)) for key, (ours, _) in _VAE_KEYS.items()}
    if config.causal_encoder:  # as in every release: the official configs have no word for it
        del values["causal_encoder"]
    return {
        "_class_name": "CausalVideoAutoencoder",
        **_VAE_FIXED,
        **values,
        "encoder_blocks": [[block.kind, _block_params(block, "encoder")] for block in config.encoder_blocks],
        "decoder_blocks": [[block.kind, _block_params(block, "decoder")] for block in config.decoder_blocks],
    }


def schedule_from_official(official: Json) -> Schedule:
    """The sampler's schedule of an official ``scheduler`` section; raises ``CheckpointError`` by name of the key."""
    sampler, shifting = official.get("sampler"), official.get("shifting")
    kinds, shifts = {**_swapped(_SAMPLERS), None: "uniform"}, _swapped(_SHIFTINGS)
    for key, value, known in (("sampler", sampler, kinds), ("shifting", shifting, shifts)):
        if not isinstance(value, str | None) or value not in known:
            raise CheckpointError(
                f"The scheduler config says {key}={value!r}; openltx has {', '.join(map(repr, known))}."
            )
    given: Json = {ours: official[key] for ours, key in _SCHEDULE_KEYS.items() if official.get(key) is not None}
    for ours, value in given.items():
        if not (_is_number(value) or (ours in ("shift_low", "shift_high") and _is_anchor(value))):
            raise CheckpointError(f"The scheduler config says {_SCHEDULE_KEYS[ours]}={value!r}, which is no number.")
    given |= {ours: tuple(given[ours]) for ours in ("shift_low", "shift_high") if ours in given}
    return Schedule(kind=kinds[sampler], shift=shifts[shifting], **given)


def official_schedule(schedule: Schedule) -> Json:
    """The official ``scheduler`` section of a schedule."""
    section: Json = {
        "_class_name": "RectifiedFlowScheduler",
        "num_train_timesteps": 1000,
        "sampler": _SAMPLERS[schedule.kind],
        "shifting": _SHIFTINGS[schedule.shift],
        "base_resolution": schedule.base_resolution if schedule.shift == "resolution" else None,
        "target_shift_terminal": schedule.terminal,
    }
    defaults = {field.name: field.default for field in fields(Schedule)}
    own = {_SCHEDULE_KEYS[name]: getattr(schedule, name) for name in ("shift_low", "shift_high", "constant_mu")
           if getattr(schedule, name) != defaults[name]}  # fmt: skip
    return section | {key: _plain(value) for key, value in own.items()}


def allowed_times(config: Json) -> tuple[float, ...] | None:
    """The only times at which a distilled file allows its transformer to be called (None: any).

    ``config`` is the whole of the header's. Raises ``CheckpointError`` if the list makes no sense.
    """
    stated = config.get("allowed_inference_steps")
    if stated is None:
        return None
    if not isinstance(stated, list) or not stated or not all(_is_number(t) and 0 < t <= 1 for t in stated):
        raise CheckpointError(f"The config says allowed_inference_steps={stated!r}; it must be times in (0, 1].")
    return tuple(float(t) for t in stated)


def sniff_vae(shapes: Shapes) -> VAEConfig:
    """The release whose VAE has these tensors (names without prefix), for files whose header has no config."""
    width, base = shapes["encoder.conv_out.conv.weight"][1], shapes["encoder.conv_in.conv.weight"][0]
    if width == 16 * base:
        name = "0.9.5"
    else:
        conditioned = "decoder.last_time_embedder.timestep_embedder.linear_1.weight" in shapes
        name = "0.9.1" if conditioned else "0.9.0"
    return vae_preset(name, base_channels=base, latent_channels=shapes["decoder.conv_in.conv.weight"][1])


def sniff_transformer(shapes: Shapes, causal_positions: bool) -> TransformerConfig:
    """The released transformer with these tensors (names without prefix), for files whose header has no config.

    No tensor tells ``causal_positions``: it comes with the VAE (0.9.5 and later). Raises ``CheckpointError`` if the
    width is that of no release.
    """
    width = shapes["patchify_proj.weight"][0]
    for name in ("2b", "13b"):
        preset = transformer_preset(name)
        if preset.width == width:
            return replace(preset, causal_positions=causal_positions)
    raise CheckpointError(
        f"The file's header has no config, and its transformer is {width} wide, as no release is (2B: 2048, 13B: "
        '4096). The number of heads cannot be read off the tensors: add the official "config" entry to the header.'
    )


def is_causal_release(config: VAEConfig) -> bool:
    """Whether the release with this VAE numbers frames causally: those with the encoder of 0.9.5 do."""
    return any(block.kind.endswith("_res") for block in config.encoder_blocks)


def _swapped(table: Mapping[Any, Any]) -> dict[Any, Any]:
    return {value: key for key, value in table.items()}


def _blocks(official: Json, side: str) -> tuple[Block, ...]:
    table = official.get(f"{side}_blocks", official.get("blocks"))
    if not isinstance(table, list) or not table:
        raise CheckpointError(f'The vae config has no list "{side}_blocks" (nor "blocks", which serves both).')
    return tuple(_block(entry, side) for entry in table)


def _block(entry: object, side: str) -> Block:
    """One ``[kind, params]`` entry; an integer means the number of layers of a ``res_x`` and nothing elsewhere."""
    if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], int | dict)):
        raise CheckpointError(f"The vae config's {side} block {entry!r} is not a [kind, parameters] pair.")
    kind, params = entry
    if kind not in get_args(BlockKind):
        raise CheckpointError(
            f"The vae config's {side} has a block of kind {kind!r}; openltx knows {', '.join(get_args(BlockKind))}."
        )
    if kind not in _BLOCK_PARAMS[side]:
        raise CheckpointError(f"The vae config's {side} has {kind!r}, which is not a kind of {side} block.")
    if isinstance(params, int):
        params = {"num_layers": params} if kind == "res_x" else {}
    allowed: Json = _BLOCK_PARAMS[side][kind]
    for key in params:
        if key not in allowed:
            raise CheckpointError(
                f"The vae config's {side} block {kind!r} has a parameter {key!r} that openltx does not know there; "
                f"it knows {', '.join(allowed) or 'none'}."
            )
        wanted = _boolean if isinstance(allowed[key], bool) else _size
        try:
            wanted(params[key])
        except ValueError as error:
            raise CheckpointError(
                f"The vae config's {side} block {kind!r} says {key}={params[key]!r}: {error}."
            ) from error
    settings: Json = {**allowed, **params}
    return Block(kind=kind, **settings)


def _block_params(block: Block, side: str) -> Json:
    return {key: getattr(block, key) for key in _BLOCK_PARAMS[side][block.kind]}


def _refuse_others(section: str, official: Json, fixed: Json, known: set[str]) -> None:
    """Refuse values of ``fixed`` keys that our modules cannot be; warn about keys that nobody knows."""
    for key, only in fixed.items():
        if key in official and official[key] != only:
            raise CheckpointError(
                f"The {section} config says {key}={official[key]!r}; openltx builds {key}={only!r} only, which is what "
                "every release has."
            )
    unknown = [key for key in official if key not in known and key not in fixed and not key.startswith("_")]
    if unknown:
        warnings.warn(f"Keys of the {section} config that openltx does not know: {', '.join(unknown)}.", stacklevel=3)


def _translate(section: str, official: Json, keys: Mapping[str, tuple[str, Callable]]) -> Json:
    """The keyword arguments of our config that ``official`` names; its absent keys stay at our defaults."""
    translated: Json = {}
    for key, (ours, convert) in keys.items():
        if key not in official:
            if key in _REQUIRED:
                raise CheckpointError(f"The {section} config has no {key!r}, which says how large the network is.")
            continue
        try:
            translated[ours] = convert(official[key])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"The {section} config says {key}={official[key]!r}: {error}.") from error
    return translated


def _one_of(*choices: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if value not in choices:
            raise ValueError(f"possible are {', '.join(choices)}")
        return str(value)

    return convert


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("it must be a whole number above 0")
    return value


def _is_anchor(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")
    return value


def _floats(value: list) -> tuple[float, ...]:
    return tuple(float(item) for item in value)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _default(key: str) -> object:
    ours = _TRANSFORMER_KEYS[key][0]
    default = next(field.default for field in fields(TransformerConfig) if field.name == ours)
    assert default is not MISSING
    return default


# official key -> (our field, conversion)
_TRANSFORMER_KEYS: dict[str, tuple[str, Callable]] = {
    "num_layers": ("num_layers", _size),
    "num_attention_heads": ("num_heads", _size),
    "attention_head_dim": ("head_dim", _size),
    "caption_channels": ("caption_channels", _size),
    "in_channels": ("in_channels", _size),
    "out_channels": ("out_channels", _size),
    "norm_eps": ("norm_eps", float),
    "positional_embedding_theta": ("theta", float),
    "positional_embedding_max_pos": ("max_positions", _floats),
    "timestep_scale_multiplier": ("timestep_scale", float),
    "causal_temporal_positioning": ("causal_positions", _boolean),
    "qk_norm_eps": ("qk_norm_eps", float),
    "rope_spacing": ("rope_spacing", _one_of("exponential", "inverse")),
    "rope_positions": ("rope_positions", _one_of("max_normalised", "fractional", "absolute")),
}
_OWN_KEYS = frozenset(("qk_norm_eps", "rope_spacing", "rope_positions"))  # written where they differ from a release
_REQUIRED = frozenset(("num_layers", "num_attention_heads", "attention_head_dim", "caption_channels"))
_TRANSFORMER_FIXED: Json = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "adaptive_norm": "single_scale_shift",
    "double_self_attention": False,
    "dropout": 0.0,
    "norm_elementwise_affine": False,
    "only_cross_attention": False,
    "positional_embedding_type": "rope",
    "qk_norm": "rms_norm",
    "standardization_norm": "rms_norm",
    "upcast_attention": False,
}
# Keys without an effect on the network.
_TRANSFORMER_FREE = {
    "cross_attention_dim", "norm_num_groups", "num_embeds_ada_norm", "num_vector_embeds", "project_to_2d_pos",
    "sample_size", "use_linear_projection", "use_tpu_flash_attention",
}  # fmt: skip

_SAMPLERS: Json = {"uniform": "Uniform", "linear_quadratic": "LinearQuadratic", "constant": "Constant"}
_SHIFTINGS: Json = {"none": None, "tokens": "SD3", "resolution": "SimpleDiffusion"}
_SCHEDULE_KEYS = {
    "shift_low": "shift_low",
    "shift_high": "shift_high",
    "constant_mu": "shift",
    "base_resolution": "base_resolution",
    "terminal": "target_shift_terminal",
}

_VAE_KEYS: dict[str, tuple[str, Callable]] = {
    "latent_channels": ("latent_channels", _size),
    "patch_size": ("patch_size", _size),
    "encoder_base_channels": ("encoder_base_channels", _size),
    "decoder_base_channels": ("decoder_base_channels", _size),
    "timestep_conditioning": ("timestep_conditioning", _boolean),
    "causal_encoder": ("causal_encoder", _boolean),
    "causal_decoder": ("causal_decoder", _boolean),
    "latent_log_var": ("latent_log_var", _one_of("uniform", "per_channel", "constant", "none")),
    "spatial_padding_mode": ("spatial_padding", _one_of("zeros", "replicate", "reflect")),
}
_VAE_FIXED: Json = {
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "norm_layer": "pixel_norm",
    "scaling_factor": 1.0,
    "use_quant_conv": False,
    "normalize_latent_channels": False,
    "patch_size_t": 1,
}
_VAE_FREE = {"blocks", "encoder_blocks", "decoder_blocks"}

# kind -> its parameters and what the official loader takes for those that are not given
_BLOCK_PARAMS: dict[str, dict[str, Json]] = {
    "encoder": {
        "res_x": {"num_layers": 1},
        "compress_time": {},
        "compress_space": {},
        "compress_all": {},
        "res_x_y": {"multiplier": 2},
        "compress_all_x_y": {"multiplier": 2},
        "compress_all_res": {"multiplier": 2},
        "compress_space_res": {"multiplier": 2},
        "compress_time_res": {"multiplier": 2},
    },
    "decoder": {
        "res_x": {"num_layers": 1, "inject_noise": False},
        "res_x_y": {"multiplier": 2, "inject_noise": False},
        "compress_time": {},
        "compress_space": {},
        "compress_all": {"multiplier": 1, "residual": False},
    },
}
