"""``openltx plan``: what a request would take, before anything is loaded."""

from typing import Annotated

import torch
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from openltx.checkpoints.load import describe
from openltx.pipelines.machines import ACCELERATORS, Machine, machine
from openltx.pipelines.plan import RESIDENCIES, Placement, Plan, plan
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import Device, Precision, choose_device, placement_of


def plan_command(
    request: Annotated[
        GenerationRequest | None, Parameter(name="*", consume_multiple=True, negative_iterable="")
    ] = None,
    *,
    model: str = "playroom",
    recipe: str | None = None,
    device: Device = "cpu",
    precision: Precision = "auto",
    device_profile: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative_iterable="")] = (
        "here",
        *ACCELERATORS,
    ),
) -> None:
    """Show operations, memory and time of a request without computing it.

    Takes the same flags as `openltx generate`. Memory is the process's own, without pages of the mapped weight file.
    Times are estimates: on this CPU from a matrix product measured for a second, elsewhere from the maker's peak rate
    in bfloat16. 70% and 40% of these are assumed to be reached, and weights to be read at 2 GB/s.

    Parameters
    ----------
    model
        "playroom" (bundled), a released model that was pulled, or the path of a weight file or folder.
    recipe
        Sample the model as this release; a released file under its own name needs no word.
    device
        The device whose memory is asked in the first table.
    precision
        Number format; auto takes bfloat16 where the hardware computes in it, else float32.
    device_profile
        Machines to estimate for: here (this CPU), h100, 4090, m4-max.
    """
    request, known = request or GenerationRequest(), describe(model, recipe)
    place = placement_of(precision, choose_device(device))
    plans = {residency: plan(known, request, place, residency) for residency in RESIDENCIES}
    console = Console(highlight=False)
    console.print(_stage_table(plans))
    machines = [machine(name, place.dtype) for name in device_profile]
    table = Table("machine", "residency", "peak memory", "time", box=None, pad_edge=False)
    for each in machines:
        there = place if each.is_cpu else Placement(dtype=torch.bfloat16, is_cpu=False)
        table.add_row(*_on(each, {name: plan(known, request, there, name) for name in RESIDENCIES}))
    console.print(table)


def _stage_table(plans: dict[str, Plan]) -> Table:
    """Operations and memory of each stage."""
    names = [f"memory {residency}" for residency in plans]
    table = Table("stage", "TFLOP", *names, box=None, pad_edge=False)
    for number, stage in enumerate(plans["resident"].stages):
        memory = [_gib(each.stages[number].memory) for each in plans.values()]
        table.add_row(stage.name, f"{stage.flops / 1e12:.3g}", *memory)
    total = f"{plans['resident'].flops / 1e12:.3g}"
    table.add_row("all, at most", total, *(_gib(each.peak) for each in plans.values()))
    return table


def _on(machine: Machine, plans: dict[str, Plan]) -> tuple[str, str, str, str]:
    """The first residency that fits a machine."""
    for residency, each in plans.items():
        if each.peak <= machine.memory:
            return machine.name, residency, _gib(each.peak), _time(each.seconds(machine))
    streamed = plans["streamed"]
    return machine.name, "does not fit", _gib(streamed.peak), f"has {_gib(machine.memory)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _time(seconds: float) -> str:
    return f"about {seconds:.2g} s" if seconds < 100 else f"about {seconds / 60:.3g} min"
