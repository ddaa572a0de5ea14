"""Tensor names, official and diffusers', as data.

Official names are ours: modules are built with them, so an official file needs no renaming but its prefix. Diffusers
renames parts of a name and moves the VAE's blocks into groups; a ``RenameTable`` lists both kinds of change, and the
same table read backwards is the inverse.

    prefixes    the start of a name, whole components only, the longest match wins ("up_blocks.1" is not "up_blocks.10")
    parts       whole components anywhere in a name
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from openltx.errors import CheckpointError
from openltx.models.vae.autoencoder import Block, VAEConfig

T = TypeVar("T")
Pairs = tuple[tuple[str, str], ...]

TRANSFORMER_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
VAE_PREFIXES = ("vae.", "")
TRANSFORMER_ANCHOR = "patchify_proj.weight"
VAE_ANCHOR = "encoder.conv_in.conv.weight"

# Statistics that official files carry and no model uses.
UNUSED_VAE_TENSORS = frozenset(
    f"per_channel_statistics.{name}" for name in ("mean-of-stds", "mean-of-stds_over_std-of-means", "channel")
)


@dataclass(frozen=True)
class RenameTable:
    """An invertible renaming of dotted names: (from, to) pairs of prefixes and of parts."""

    prefixes: Pairs
    parts: Pairs

    @cached_property
    def inverse(self) -> "RenameTable":
        return RenameTable(
            prefixes=tuple((new, old) for old, new in self.prefixes),
            parts=tuple((new, old) for old, new in self.parts),
        )

    def rename(self, name: str) -> str:
        """The new name of one tensor."""
        matches = [(old, new) for old, new in self.prefixes if name == old or name.startswith(old + ".")]
        head, tail = "", name
        if matches:
            old, head = max(matches, key=lambda pair: len(pair[0]))
            tail = name[len(old) :]
        for old, new in self.parts:
            tail = re.sub(rf"(?:^|(?<=\.)){re.escape(old)}(?=\.|$)", new, tail)
        return head + tail

    def apply(self, tensors: Mapping[str, T]) -> dict[str, T]:
        """The same tensors under their new names; raises ``CheckpointError`` if two of them would share one."""
        renamed = {self.rename(name): value for name, value in tensors.items()}
        if len(renamed) != len(tensors):
            raise CheckpointError(
                "Two tensors of the file get the same name when renamed: it mixes the official layout with that of "
                "diffusers. Use the file as it was published."
            )
        return renamed


def vae_table(config: VAEConfig) -> RenameTable:
    """The official -> diffusers table of a VAE; raises ``CheckpointError`` if diffusers has no such block layout."""
    encoder = _ENCODERS.get(_kinds(config.encoder_blocks))
    decoder = _DECODERS.get(_kinds(config.decoder_blocks))
    if encoder is None or decoder is None:
        part, blocks = ("encoder", config.encoder_blocks) if encoder is None else ("decoder", config.decoder_blocks)
        raise CheckpointError(
            f"The {part} with blocks {_kinds(blocks)} has no counterpart in diffusers, which knows the layouts of "
            "releases 0.9.0, 0.9.1 and 0.9.5 only. Use the official single-file layout."
        )
    return RenameTable(prefixes=encoder + decoder + _VAE_ENDS, parts=_VAE_PARTS)


def find_prefix(names: Iterable[str], prefixes: tuple[str, ...], anchor: str) -> str | None:
    """The prefix under which ``anchor`` is stored, or None if it is not there."""
    names = set(names)
    return next((prefix for prefix in prefixes if prefix + anchor in names), None)


def _kinds(blocks: tuple[Block, ...]) -> str:
    return " ".join(block.kind for block in blocks)


def _numbered(blocks: str, targets: str) -> Pairs:
    """("encoder.down_blocks.0", "encoder." + first target), ..."""
    network = blocks.split(".")[0]
    return tuple((f"{blocks}.{i}", f"{network}.{target}") for i, target in enumerate(targets.split()))


TRANSFORMER_TABLE = RenameTable(
    prefixes=(("patchify_proj", "proj_in"), ("adaln_single", "time_embed")),
    parts=(("q_norm", "norm_q"), ("k_norm", "norm_k")),
)

_VAE_PARTS: Pairs = (("res_blocks", "resnets"), ("norm3.norm", "norm3"), ("conv_shortcut", "conv_shortcut.conv"))
_VAE_ENDS: Pairs = (
    ("decoder.last_time_embedder", "decoder.time_embedder"),
    ("decoder.last_scale_shift_table", "decoder.scale_shift_table"),
    ("per_channel_statistics.mean-of-means", "latents_mean"),
    ("per_channel_statistics.std-of-means", "latents_std"),
)

_BLOCKS_090 = "res_x compress_all res_x_y res_x compress_all res_x_y res_x compress_all res_x res_x"

# Keyed by the kinds of the blocks as the config lists them. The decoder's list starts at the pixels, its numbers at
# the latents.
_ENCODERS: dict[str, Pairs] = {
    _BLOCKS_090: _numbered(
        "encoder.down_blocks",
        "down_blocks.0 down_blocks.0.downsamplers.0 down_blocks.0.conv_out "
        "down_blocks.1 down_blocks.1.downsamplers.0 down_blocks.1.conv_out "
        "down_blocks.2 down_blocks.2.downsamplers.0 down_blocks.3 mid_block",
    ),
    "res_x compress_space_res res_x compress_time_res res_x compress_all_res res_x compress_all_res res_x": _numbered(
        "encoder.down_blocks",
        "down_blocks.0 down_blocks.0.downsamplers.0 down_blocks.1 down_blocks.1.downsamplers.0 "
        "down_blocks.2 down_blocks.2.downsamplers.0 down_blocks.3 down_blocks.3.downsamplers.0 mid_block",
    ),
}
_DECODERS: dict[str, Pairs] = {
    _BLOCKS_090: _numbered(
        "decoder.up_blocks",
        "mid_block up_blocks.0 up_blocks.1.upsamplers.0 up_blocks.1 up_blocks.2.conv_in up_blocks.2.upsamplers.0 "
        "up_blocks.2 up_blocks.3.conv_in up_blocks.3.upsamplers.0 up_blocks.3",
    ),
    "res_x compress_all res_x compress_all res_x compress_all res_x": _numbered(
        "decoder.up_blocks",
        "mid_block up_blocks.0.upsamplers.0 up_blocks.0 up_blocks.1.upsamplers.0 up_blocks.1 "
        "up_blocks.2.upsamplers.0 up_blocks.2",
    ),
}
