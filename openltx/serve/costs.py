"""What a request would take here: memory by arithmetic, time by how long the latest videos took.

``pipelines.plan`` counts the operations of each stage. How many of them this machine does in a second, the videos show
that it has made: sampling and decoding have a rate each. Before the first video a CPU's rate is measured by a matrix
product; an accelerator's is not guessed.
"""

import json
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from openltx.pipelines.machines import Machine, available_memory, machine
from openltx.pipelines.plan import Stage
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.residency import choose_device, placement_of
from openltx.recipes.opening import Choice
from openltx.serve.settings import ServerSettings
from openltx.serve.store.jobs import Job, Jobs

LATEST = 5
"""How many of the latest videos say how fast the machine is."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Operations a second in each of the two large stages, and the seconds that a video takes beside them."""

    sample: float
    decode: float
    rest: float

    def seconds(self, stage: Stage) -> float:
        return stage.flops / (self.decode if stage.name == "decode" else self.sample)


class Costs:
    """What requests take on the machine of a server."""

    def __init__(self, settings: ServerSettings, jobs: Jobs) -> None:
        self._settings = settings
        self._jobs = jobs
        self._lock = threading.Lock()  # describing a model and measuring a machine take a second: once

    def of(self, request: GenerationRequest, model: str) -> dict[str, Any]:
        """Memory, time and stages of a request to a model, as JSON; raises ``OpenLTXError`` for what cannot be made."""
        with self._lock:
            plans, rates = self.choice.plans(request), self._rates(model)
            here = None if rates is not None else self._here
        stages = [
            {
                "name": stage.name,
                "flops": stage.flops,
                "memory_bytes": stage.memory,
                "seconds": _rounded(_seconds(stage, rates, here)),
            }
            for plan in plans
            for stage in plan.stages
        ]
        seconds = [stage["seconds"] for stage in stages]
        memory, room = max(plan.peak for plan in plans), self._room()
        working = max(stage.working for plan in plans for stage in plan.stages)
        return {
            "takes_seconds": None if None in seconds else _rounded(sum(seconds) + (rates.rest if rates else 0.0)),
            "memory_bytes": memory,
            "available_bytes": room,
            "fits": working <= room,  # the weights are in memory already
            "stages": stages,
        }

    def _rates(self, model: str) -> Rates | None:
        """From the latest videos that this server has made; None if there are none."""
        sums = dict.fromkeys(("sample", "sampling", "decode", "decoding", "rest"), 0.0)
        jobs = self._jobs.latest(model, LATEST)
        for job in jobs:
            plans = self.choice.plans(_resolved(job))
            for stage in (stage for plan in plans for stage in plan.stages):
                sums["decode" if stage.name == "decode" else "sample"] += stage.flops
            sums["sampling"] += job.stages["sample"]
            sums["decoding"] += job.stages["decode"]
            sums["rest"] += job.stages["prepare"] + job.stages["write"]
        if not jobs:
            return None
        return Rates(
            sample=sums["sample"] / max(sums["sampling"], 1e-6),
            decode=sums["decode"] / max(sums["decoding"], 1e-6),
            rest=sums["rest"] / len(jobs),
        )

    @cached_property
    def choice(self) -> Choice:
        """The model and how it is used."""
        return self._settings.choose()

    @cached_property
    def _here(self) -> Machine | None:
        place = choose_device(self._settings.using.device)
        if place.type != "cpu":
            return None
        return machine("here", placement_of(self._settings.using.precision, place).dtype)

    def _room(self) -> int:
        return available_memory(choose_device(self._settings.using.device))


def _seconds(stage: Stage, rates: Rates | None, here: Machine | None) -> float | None:
    if rates is not None:
        return rates.seconds(stage)
    return None if here is None else stage.seconds(here)


def _resolved(job: Job) -> GenerationRequest:
    return GenerationRequest.from_json(json.dumps(job.resolved))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
