"""Renaming is anchored, invertible, and never merges two tensors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openltx.checkpoints.keys import TRANSFORMER_TABLE, RenameTable, find_prefix, vae_table
from openltx.errors import CheckpointError
from openltx.models.presets import vae_preset

OFFICIAL = json.loads((Path(__file__).parents[1] / "golden" / "official_tensors.json").read_text())
TABLES = {"transformer_2b": TRANSFORMER_TABLE} | {
    f"vae_{name}": vae_table(vae_preset(name)) for name in ("0.9.0", "0.9.1", "0.9.5")
}


@pytest.mark.parametrize("network", TABLES)
def test_renaming_there_and_back_gives_every_released_name(network):
    there = TABLES[network].apply(OFFICIAL[network])
    assert len(there) == len(OFFICIAL[network])
    assert set(there) != set(OFFICIAL[network])
    assert TABLES[network].inverse.apply(there) == OFFICIAL[network]


@pytest.mark.parametrize(
    ("network", "official", "diffusers"),
    [
        ("transformer_2b", "transformer_blocks.11.attn1.q_norm.weight", "transformer_blocks.11.attn1.norm_q.weight"),
        ("transformer_2b", "adaln_single.linear.bias", "time_embed.linear.bias"),
        ("vae_0.9.0", "encoder.down_blocks.2.conv_shortcut.bias",
         "encoder.down_blocks.0.conv_out.conv_shortcut.conv.bias"),
        ("vae_0.9.0", "encoder.down_blocks.1.conv.weight", "encoder.down_blocks.0.downsamplers.0.conv.weight"),
        ("vae_0.9.0", "decoder.up_blocks.4.norm3.norm.bias", "decoder.up_blocks.2.conv_in.norm3.bias"),
        ("vae_0.9.5", "decoder.last_scale_shift_table", "decoder.scale_shift_table"),
        ("vae_0.9.5", "per_channel_statistics.std-of-means", "latents_std"),
    ],
)  # fmt: skip
def test_names_move_to_where_diffusers_keeps_them(network, official, diffusers):
    assert TABLES[network].rename(official) == diffusers
    assert TABLES[network].inverse.rename(diffusers) == official


def test_a_prefix_matches_whole_components_and_the_longest_wins():
    table = RenameTable(prefixes=(("up.1", "a"), ("up.1.x", "b")), parts=())
    assert table.rename("up.10.w") == "up.10.w"
    assert table.rename("up.1.w") == "a.w"
    assert table.rename("up.1.x.w") == "b.w"


def test_a_renaming_that_merges_two_tensors_is_refused():
    with pytest.raises(CheckpointError, match="same name"):
        TRANSFORMER_TABLE.apply({"patchify_proj.weight": 1, "proj_in.weight": 2})


def test_a_vae_that_diffusers_cannot_be_is_refused():
    config = vae_preset("tiny")
    with pytest.raises(CheckpointError, match="no counterpart in diffusers"):
        vae_table(replace(config, decoder_blocks=config.decoder_blocks[1:]))


@pytest.mark.parametrize(
    ("names", "prefix"), [(["vae.a"], "vae."), (["a", "b"], ""), (["model.a"], None), (["vae.vae.a"], None)]
)
def test_a_prefix_is_found_by_its_anchor(names, prefix):
    assert find_prefix(names, ("vae.", ""), "a") == prefix
