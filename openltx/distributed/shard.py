"""A transformer spread over the processes of a run, from outside: parameters keep their names, the model its code.

    shard      FSDP2: weights, gradients and optimizer state lie in pieces, one on each rank; a block's weights are
               gathered while it computes
    sequence   so many neighbouring ranks share the tokens of each video (``distributed.sequence``)

Activation checkpointing is ``VideoTransformer.checkpoint_blocks``. Call ``spread`` within ``ranks.process_group``, with
the whole model on every rank, and before parameters are given to an optimizer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from openltx.distributed import ranks
from openltx.distributed.sequence import spread_tokens
from openltx.models.transformer import Block, VideoTransformer


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How training is spread over the processes that torchrun started; it changes no result but by rounding."""

    shard: bool = False
    """Keep weights, gradients and optimizer state in pieces over all processes, instead of whole in each."""
    sequence: int = 1
    """How many processes share the tokens of one video: for long ones."""
    recompute: bool = False
    """Keep only what passes between blocks and compute each block again in the backward pass."""
    gathered: Literal["float32", "bf16"] = "bf16"
    """What gathered weights compute in, with shard; the pieces and the sums of gradients are float32 in both."""


def spread(transformer: VideoTransformer, parallel: Parallel) -> None:
    """Spread ``transformer`` over the ranks, in place; one process alone only takes ``recompute`` from it."""
    transformer.checkpoint_blocks = parallel.recompute
    if ranks.world_size() == 1:
        return
    kind = next(transformer.parameters()).device.type
    if parallel.sequence > 1:
        shape = (ranks.world_size() // parallel.sequence, parallel.sequence)
        mesh = init_device_mesh(kind, shape, mesh_dim_names=("batch", "sequence"))
        spread_tokens(transformer, mesh.get_group("sequence"))
    if parallel.shard:
        _shard(transformer, parallel, kind)


def _shard(transformer: VideoTransformer, parallel: Parallel, kind: str) -> None:
    mesh = init_device_mesh(kind, (ranks.world_size(),), mesh_dim_names=("shard",))
    dtype = torch.bfloat16 if parallel.gathered == "bf16" else None
    # positions, times and modulations are float32 on purpose: inputs are never cast
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in cast("Iterable[Block]", transformer.transformer_blocks):
        if block.attn2 is not None:
            fully_shard(block.attn2, mesh=mesh, mp_policy=policy)
            for method in ("across", "keys_values"):  # two ways in: the caption's keys are made before the blocks run
                register_fsdp_forward_method(block.attn2, method)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(transformer, mesh=mesh, mp_policy=policy)
    if dist.get_backend() == "gloo":  # which can add, but not average
        for module in transformer.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
