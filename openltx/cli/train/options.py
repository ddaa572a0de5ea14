"""What the training commands have in common."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from openltx.training.config import RunConfig

MaxSeconds = Annotated[float | None, Parameter(help="Stop with a checkpoint after this many seconds.")]
Threads = Annotated[int | None, Parameter(help="CPU threads (default: torch's choice).")]
Steps = Annotated[int | None, Parameter(help="Stop after this many steps in all (default: the recipe's).")]
AllowChanges = Annotated[bool, Parameter(help="Resume although settings of the run have changed.", negative="")]


@dataclass(frozen=True, kw_only=True)
class ParallelFlags:
    """How a run is spread over the processes of torchrun."""

    shard: Annotated[bool, Parameter(negative=())] = False
    """Keep weights, gradients and optimizer state in pieces over all processes, instead of whole in each."""
    sequence: int = 1
    """How many processes share the tokens of one video: for long ones."""


ONE_PROCESS = ParallelFlags()


def limited(config: RunConfig, steps: int | None, max_seconds: float | None, threads: int | None) -> RunConfig:
    """The recipe's settings with what the command line says instead."""
    return dataclasses.replace(config, steps=steps or config.steps, max_seconds=max_seconds, threads=threads)
