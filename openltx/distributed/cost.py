"""What training a transformer on many accelerators costs, computed from its configuration: time, memory, traffic.

Nothing here is measured. The model:

    operations   three passes' worth a step (forwards, and twice that backwards), four with recomputed blocks, at the
                 share ``utilisation`` of what the accelerator can do in bfloat16
    memory       16 bytes a parameter (weight, gradient, two averages of AdamW, all float32), and 4 for the averaged
                 weights, in equal pieces on all; two blocks gathered in bfloat16 and one block's gradient; and the
                 activations of this rank's tokens
    traffic      FSDP gathers the weights twice in bfloat16 and sums gradients once in float32, (ranks - 1) / ranks of
                 them on every rank, in each turn of a step; sequence parallelism sends four times the width of each
                 token, forwards and backwards, in every block. The slower of traffic and operations counts: they
                 overlap.
"""

from dataclasses import dataclass

from openltx.models.cost import block_parameters, prepare_flops, step_flops, transformer_parameters
from openltx.models.transformer import TransformerConfig

BLOCK_BYTES = 78  # for each token and channel: what a block in bfloat16 keeps for its backward pass (counted in a test)


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """What one device can do, by its data sheet; bandwidths in bytes a second, for one device in one direction."""

    name: str
    flops: float
    memory: float
    inside: float  # to others of its machine
    outside: float  # to other machines
    per_machine: int


H100 = Accelerator(
    name="H100 SXM", flops=989e12, memory=80e9, inside=450e9, outside=50e9, per_machine=8
)  # dense bfloat16; NVLink 4; 400 Gbit/s a device


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run: how many videos of how many tokens each step, on how many devices, in how many turns (``accumulate``)."""

    devices: int
    videos: int  # a step, over all devices
    tokens: int
    text_tokens: int = 256
    sequence: int = 1
    accumulate: int = 1
    recompute: bool = False
    accelerator: Accelerator = H100
    utilisation: float = 0.4


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Of one step: operations of all devices, seconds, and bytes on one device."""

    flops: int
    compute_seconds: float
    traffic_seconds: float
    state_bytes: float
    activation_bytes: float
    gathered_bytes: int
    tokens_per_second: float

    @property
    def seconds(self) -> float:
        """A step's, if traffic hides behind operations or the reverse."""
        return max(self.compute_seconds, self.traffic_seconds)

    @property
    def memory(self) -> float:
        """Bytes on each device."""
        return self.state_bytes + self.activation_bytes + self.gathered_bytes


def training_cost(config: TransformerConfig, setup: Setup) -> TrainingCost:
    """What a step costs."""
    parameters = transformer_parameters(config)
    passes = 4 if setup.recompute else 3
    video = step_flops(config, setup.tokens, setup.text_tokens) + prepare_flops(config, setup.text_tokens)
    flops = passes * setup.videos * video
    compute = flops / (setup.devices * setup.accelerator.flops * setup.utilisation)
    traffic = _shard_traffic(parameters, setup) + _sequence_traffic(config, setup)
    own_tokens = setup.videos * setup.tokens / setup.devices / setup.accumulate
    seconds = max(compute, traffic)
    return TrainingCost(
        flops=flops,
        compute_seconds=compute,
        traffic_seconds=traffic,
        state_bytes=20 * parameters / setup.devices,
        activation_bytes=activation_bytes(config, own_tokens, recompute=setup.recompute),
        gathered_bytes=(2 * 2 + 4) * block_parameters(config),
        tokens_per_second=setup.videos * setup.tokens / seconds,
    )


def activation_bytes(config: TransformerConfig, tokens: float, *, recompute: bool) -> float:
    """What is kept between forward and backward pass, in bfloat16, with an attention that does not keep its logits.

    With recomputed blocks: what passes between them, and all of one block.
    """
    kept = 2 * config.num_layers + BLOCK_BYTES if recompute else config.num_layers * BLOCK_BYTES
    return tokens * config.width * kept


def _shard_traffic(parameters: int, setup: Setup) -> float:
    """Seconds in which the weights are gathered twice and the gradients summed, at the slower of the two networks."""
    share = (setup.devices - 1) / setup.devices
    bandwidth = (
        setup.accelerator.inside if setup.devices <= setup.accelerator.per_machine else setup.accelerator.outside
    )
    return setup.accumulate * share * parameters * (2 + 2 + 4) / bandwidth


def _sequence_traffic(config: TransformerConfig, setup: Setup) -> float:
    """Seconds of the all-to-alls of q, k, v and the output, there and back, inside a machine."""
    if setup.sequence == 1:
        return 0.0
    own = setup.videos * setup.tokens / setup.devices
    passes = 3 if setup.recompute else 2
    share = (setup.sequence - 1) / setup.sequence
    return passes * config.num_layers * 4 * own * config.width * 2 * share / setup.accelerator.inside
