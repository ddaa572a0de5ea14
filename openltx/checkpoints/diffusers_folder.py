"""Our configurations in the terms of diffusers, so that a folder that we write loads there.

Each is the inverse of its reader in ``checkpoints.diffusers`` and is read back before it is used: what that layout
cannot say is refused by name.
"""

from typing import Any

from openltx.checkpoints import diffusers
from openltx.checkpoints.config import Json
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.transformer import TransformerConfig
from openltx.models.vae.autoencoder import Block, VAEConfig

VERSION = "0.35.0"  # the oldest diffusers that reads what is written here


def transformer_json(config: TransformerConfig) -> Json:
    """``transformer/config.json``; raises ``CheckpointError`` if diffusers cannot build this transformer."""
    written: Json = {
        "_class_name": "LTXVideoTransformer3DModel",
        "_diffusers_version": VERSION,
        **diffusers.TRANSFORMER_FIXED,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "cross_attention_dim": config.width,
        "num_layers": config.num_layers,
        "norm_eps": config.norm_eps,
        "caption_channels": config.caption_channels,
    }
    _require_equal("transformer", config, diffusers.transformer_config(written), besides=("causal_positions",))
    return written


def vae_json(config: VAEConfig) -> Json:
    """``vae/config.json``; raises ``CheckpointError`` if diffusers cannot build this VAE."""
    written: Json = {
        "_class_name": "AutoencoderKLLTXVideo",
        "_diffusers_version": VERSION,
        **diffusers.VAE_FIXED,
        "latent_channels": config.latent_channels,
        "patch_size": config.patch_size,
        "timestep_conditioning": config.timestep_conditioning,
        "decoder_causal": config.causal_decoder,
        **_encoder_json(config),
        **_decoder_json(config),
    }
    _require_equal("vae", config, diffusers.vae_config(written))
    return written


def scheduler_json(schedule: Schedule) -> Json | None:
    """``scheduler/scheduler_config.json``, or None for a schedule that diffusers does not have.

    Diffusers shifts uniform times by the token count; to any other scheduler config its pipeline hands linear-quadratic
    times.
    """
    shifts = schedule.kind == "uniform" and schedule.shift == "tokens"
    if not shifts and schedule != Schedule(kind="linear_quadratic", terminal=None):
        return None
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": shifts,
        "base_image_seq_len": schedule.shift_low[0],
        "base_shift": schedule.shift_low[1],
        "max_image_seq_len": schedule.shift_high[0],
        "max_shift": schedule.shift_high[1],
        "shift_terminal": schedule.terminal,
        "invert_sigmas": False,
    }


def index_json(causal: bool, parts: set[str]) -> Json:
    """``model_index.json``: the pipeline, and which of its ``parts`` are there. A text encoder is given separately."""
    classes = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
    }
    return {
        "_class_name": "LTXConditionPipeline" if causal else "LTXPipeline",
        "_diffusers_version": VERSION,
        "text_encoder": [None, None],
        "tokenizer": [None, None],
        **{name: value if name in parts else [None, None] for name, value in classes.items()},
    }


def _encoder_json(config: VAEConfig) -> Json:
    """Groups of residual blocks from the pixels inwards; what follows a group makes it smaller, wider, or both."""
    *blocks, last = config.encoder_blocks
    residual = any(block.kind.endswith("_res") for block in blocks)
    widths, layers, scaled, kinds = [config.encoder_base_channels], [], [], []
    for block in blocks:
        if block.kind == "res_x":
            widths.append(widths[-1])
            layers.append(block.num_layers)
            scaled.append(False)
            kinds.append("conv")
        elif not layers:
            raise _no_counterpart("encoder", block)
        else:
            widths[-1] *= block.multiplier
            scaled[-1] |= block.kind.startswith("compress")
            if block.kind in _DOWN_NAMES:
                kinds[-1] = _DOWN_NAMES[block.kind]
    return {
        "block_out_channels": widths if residual else widths[:-1],
        "down_block_types": [f"LTXVideo{'095' if residual else ''}DownBlock3D"] * len(kinds),
        "layers_per_block": [*layers, last.num_layers],
        "spatio_temporal_scaling": scaled,
        "downsample_type": kinds,
    }


def _decoder_json(config: VAEConfig) -> Json:
    """From the latents outwards, as diffusers builds it; its lists are reversed, as its config has them."""
    middle, *blocks = reversed(config.decoder_blocks)
    width = config.decoder_base_channels
    for block in blocks:
        width *= block.multiplier if block.kind.startswith(("compress", "res_x_y")) else 1
    widths, layers, noise = [], [middle.num_layers], [middle.inject_noise]
    scaled, residual, factors = [], [], []
    narrower, up = 1, None
    for block in blocks:
        match block.kind:
            case "res_x_y":
                narrower = block.multiplier
            case "compress_all":
                up = block
            case "res_x":
                factor = up.multiplier if up else 1
                widths.append(width // narrower)
                width //= narrower * factor
                layers.append(block.num_layers)
                noise.append(block.inject_noise)
                scaled.append(up is not None)
                residual.append(up is not None and up.residual)
                factors.append(factor)
                narrower, up = 1, None
            case _:
                raise _no_counterpart("decoder", block)
    return {
        "decoder_block_out_channels": widths[::-1],
        "decoder_layers_per_block": layers[::-1],
        "decoder_inject_noise": noise[::-1],
        "decoder_spatio_temporal_scaling": scaled[::-1],
        "upsample_residual": residual[::-1],
        "upsample_factor": factors[::-1],
    }


def _require_equal(section: str, config: Any, read_back: Any, besides: tuple[str, ...] = ()) -> None:
    """Raise unless diffusers' config means the same as ours."""
    different = [
        f"{name}={getattr(config, name)!r}"
        for name in type(config).__dataclass_fields__
        if name not in besides and getattr(config, name) != getattr(read_back, name)
    ]
    if different:
        raise CheckpointError(
            f"The diffusers layout cannot hold this {section}: it has no word for {', '.join(different)}. Keep the "
            "official single file."
        )


def _no_counterpart(side: str, block: Block) -> CheckpointError:
    return CheckpointError(
        f"The diffusers layout cannot hold this vae: its {side} has a block {block.kind!r} at a place where diffusers "
        "has none. Keep the official single file."
    )


_DOWN_NAMES = {kind: name for name, kind in diffusers.DOWN_KINDS.items()}
