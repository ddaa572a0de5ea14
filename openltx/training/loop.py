"""The training loop. It knows nothing of video: a task hands it phases and batches, and a step runs each phase once.

    @dataclass(frozen=True, kw_only=True)
    class Phase:
        name: str
        parameters: Sequence[nn.Parameter]            # all that this phase trains
        optim: OptimConfig
        loss: Callable[[batch, step: int, torch.Generator], tuple[Tensor, Mapping[str, float | Tensor]]]
        muon_parameters: Sequence[nn.Parameter] = ()  # those of them for Muon when optim.kind == "muon"
        start: int = 0                                # the first step in which this phase runs

    class Task(Protocol):
        name: str
        module: nn.Module                  # all trained parameters, and every buffer that must survive a resume
        phases: Sequence[Phase]
        settings: Mapping[str, object]     # what the task was built from; compared on resume
        def batch(self, step: int, micro: int) -> object                 # pure; runs in a background thread
        def on_step(self, step: int, average: ExponentialAverage) -> None   # before each step: schedules, surgery
        def after_step(self, step: int) -> None   # running statistics
        def write_samples(self, folder: Path, step: int, ema: bool) -> Mapping[str, float] | None

    run(task, RunConfig(steps=1000, out=Path("runs/x")), resume="auto", allow_changes=False) -> Outcome

What a step sees is a function of the saved state and of (seed, step) only: `batch` and the generators are pure in them
(`noise.derived_generator(seed, "batch", step, micro)`), and torch's, numpy's and Python's global generators are
seeded anew at each step. So a run that is killed and started again repeats the uninterrupted one bit for bit at the
same thread count. Steps count from 0 in calls; logs and checkpoints name the number of completed steps.

Under torchrun the `accumulate` batches of a step are shared out among the ranks, so that the loss curve is the one of a
single process that takes them one after the other; rank 0 alone writes. With `distribute` the task's weights may lie in
pieces on the ranks (`distributed.shard`): every rank then writes its own pieces of a checkpoint, and no samples are
written, since these need the whole model.

The loss runs under bf16 autocast (if set) on float32 weights; compute losses in float32 (`x.float()`). While a phase
runs, parameters of other phases do not require gradients. `write_samples` runs in eval mode without gradients,
with averaged (`ema`) or raw weights; the numbers that it returns go to evaluations.jsonl.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from openltx.distributed import ranks
from openltx.distributed.ranks import is_sharded, whole
from openltx.errors import DivergedError, RunError
from openltx.noise import derived_generator
from openltx.training.batches import Batches, my_micros
from openltx.training.config import FREE_FIELDS, OptimConfig, RunConfig, as_json, changed_fields, optim_config_from_json
from openltx.training.interruption import StopReason, StopRequest
from openltx.training.metrics import Recorder
from openltx.training.optim import ExponentialAverage, PhaseOptimizer
from openltx.training.posthoc import PowerAverages
from openltx.training.randomness import seed_global_generators
from openltx.training.state import (
    Checkpoint,
    ShardedState,
    discard_partial_checkpoints,
    exclusive_run,
    is_sharded_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_description,
    load_sharded_tensors,
    save_checkpoint,
    save_sharded_checkpoint,
    sharded_names,
    write_json,
)

PhaseLoss = Callable[[Any, int, torch.Generator], tuple[Tensor, Mapping[str, float | Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Parameters that are trained together on one loss."""

    name: str
    parameters: Sequence[nn.Parameter]
    optim: OptimConfig
    loss: PhaseLoss
    muon_parameters: Sequence[nn.Parameter] = ()
    start: int = 0


@runtime_checkable
class Task(Protocol):
    """What is learned: see the head of this file."""

    @property
    def name(self) -> str: ...
    @property
    def module(self) -> nn.Module: ...
    @property
    def phases(self) -> Sequence[Phase]: ...
    @property
    def settings(self) -> Mapping[str, object]: ...
    def batch(self, step: int, micro: int) -> object: ...
    def on_step(self, step: int, average: ExponentialAverage) -> None: ...
    def after_step(self, step: int) -> None: ...
    def write_samples(self, folder: Path, step: int, ema: bool) -> Mapping[str, float] | None: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far a call of `run` came and why it ended."""

    step: int
    reason: StopReason | Literal["finished"]


@dataclass(kw_only=True)
class Learner:
    """A task with its optimizers, its averaged weights and the number of completed steps."""

    task: Task
    config: RunConfig
    phases: Sequence[Phase]  # of the task, asked for once
    objectives: Mapping[str, nn.Module]  # of the phases, with gradients averaged over ranks
    optimizers: Mapping[str, PhaseOptimizer]
    ema: ExponentialAverage
    posthoc: PowerAverages | None = None
    step: int = 0
    seconds: float = 0.0

    @property
    def sharded(self) -> bool:
        """Whether the weights lie in pieces on several ranks."""
        return is_sharded(self.task.module.parameters())


def run(
    task: Task,
    config: RunConfig,
    *,
    resume: Literal["auto", "new"] = "auto",
    allow_changes: bool = False,
    distribute: Callable[[], None] | None = None,
    sequence: int = 1,
) -> Outcome:
    """Train until `config.steps`, or until time, a signal or a file STOP in `config.out` ends it with a checkpoint.

    resume "auto" goes on from the newest checkpoint in `config.out` if there is one; "new" refuses to. Settings that
    differ from the checkpoint's raise RunError unless `allow_changes`; so do a loss or gradient that is not finite.
    `distribute` is called once the ranks can talk, before the task is asked for its parameters; `sequence` neighbouring
    ranks take the same batches.
    """
    with ranks.process_group(sequence), _held(config.out), _thread_count(config.threads):
        _demand_equal_shares(config)
        if distribute is not None:
            distribute()
        learner = _new_learner(task, config)
        _restore(learner, resume, allow_changes)
        with _recorder(learner) as recorder, StopRequest(config) as stop:
            reason = _train(learner, recorder, stop)
            if reason != "finished" and recorder is not None:
                recorder.say(
                    f"stopped ({reason}) after {learner.step} of {config.steps} steps; "
                    f"the same command goes on from {config.out}"
                )
        return Outcome(step=learner.step, reason=reason)


def step(learner: Learner, batches: Iterable[object]) -> dict[str, float]:
    """One training step: each phase once over the `accumulate` batches; returns what to log."""
    task, config, index = learner.task, learner.config, learner.step
    seed_global_generators(config.seed, index)
    task.on_step(index, learner.ema)
    logs: dict[str, float] = {}
    phases = [phase for phase in learner.phases if phase.start <= index]
    if len(phases) > 1:
        batches = list(batches)
    for phase in phases:
        values = _phase_step(learner, phase, batches)
        logs |= {f"{phase.name}/{key}": value for key, value in values.items()}
    task.after_step(index)
    learner.ema.update(index)
    if learner.posthoc is not None:
        learner.posthoc.update(index)
    learner.step += 1
    return logs


def _phase_step(learner: Learner, phase: Phase, batches: Iterable[object]) -> dict[str, float]:
    config, index, optimizer = learner.config, learner.step, learner.optimizers[phase.name]
    device = phase.parameters[0].device
    _require_gradients(learner.optimizers, phase.name)
    optimizer.zero_grad()
    objective, logged = learner.objectives[phase.name], []
    micros = my_micros(config)
    for micro, batch in zip(micros, batches, strict=True):
        generator = derived_generator(config.seed, "loss", phase.name, index, micro, device=device)
        with _without_averaging(objective, unless=micro == micros[-1]):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast == "bf16"):
                loss, values = objective(batch, index, generator)
            (loss / len(micros)).backward()
        logged.append({name: float(torch.as_tensor(x).detach()) for name, x in {"loss": loss, **values}.items()})
    totals = _means([entry for entries in ranks.from_all_ranks(logged) for entry in entries])
    _demand_finite("loss", phase, index, totals["loss"])
    norm = float(whole(nn.utils.clip_grad_norm_(phase.parameters, config.clip_norm)))
    _demand_finite("gradient norm", phase, index, norm)
    return totals | {"grad_norm": norm} | optimizer.step(index - phase.start, config.steps - phase.start)


class Objective(nn.Module):
    """A phase's loss as the forward pass of a module that has the phase's parameters, as DDP wants it."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self.parameters_of_phase = nn.ParameterList(phase.parameters)
        self.loss = phase.loss

    def forward(self, batch: Any, step: int, generator: torch.Generator) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        return self.loss(batch, step, generator)


def _means(entries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each value over the entries that have it."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    found = {name: [entry[name] for entry in entries if name in entry] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _without_averaging(objective: nn.Module, *, unless: bool) -> AbstractContextManager[object]:
    """Gradients stay on their rank, unless this is the step's last batch."""
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) and not unless else nullcontext()


def _train(learner: Learner, recorder: Recorder | None, stop: StopRequest) -> StopReason | Literal["finished"]:
    config = learner.config
    learner.task.module.train()
    sharded = learner.sharded
    if sharded and learner.posthoc is not None:
        raise RunError("Averages for a later choice (posthoc_every) are kept by whole networks only: leave one out.")
    writes = sharded or recorder is not None
    reason, saved_at, saved_step = None, time.monotonic(), learner.step
    with Batches(learner.task.batch, config, learner.step) as batches:
        while learner.step < config.steps and (reason := _agreed(stop.reason())) is None:
            logs = step(learner, batches.of_step(learner.step))
            if recorder is not None:
                learner.seconds = recorder.seconds()
                recorder.record(learner.step, logs)
                if learner.posthoc is not None and _due(learner.step, config.posthoc_every):
                    learner.posthoc.store(config.out, learner.step)
                if not sharded and (learner.step == config.steps or _due(learner.step, config.sample_every)):
                    _write_samples(learner, recorder)
            overdue = time.monotonic() - saved_at >= config.checkpoint_every_seconds
            if sharded:  # all ranks write, so all go by the first one's clock
                overdue = ranks.from_all_ranks(overdue)[0]
            if writes and (overdue or _due(learner.step, config.checkpoint_every)):
                _save(learner, recorder)
                saved_at, saved_step = time.monotonic(), learner.step
    if writes and saved_step != learner.step:
        _save(learner, recorder)
    ranks.wait_for_all()
    if reason == "stop file":
        stop.file.unlink(missing_ok=True)  # so that the next start goes on
    return reason or "finished"


def _agreed(reason: StopReason | None) -> StopReason | None:
    """The first rank's reason to stop, where any has one: all ranks stop at the same step."""
    reasons: list[StopReason | None] = ranks.from_all_ranks(reason)
    return next((found for found in reasons if found is not None), None)


def _recorder(learner: Learner) -> AbstractContextManager[Recorder | None]:
    if not ranks.is_main():
        return nullcontext()
    write_json(learner.config.out / "run.json", _settings(learner.task, learner.config))
    return Recorder(learner.config, learner.step, learner.seconds)


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Rank 0 holds the run's folder; the others wait until it does, and go on to read checkpoints in it."""
    with exclusive_run(out) if ranks.is_main() else nullcontext():
        if ranks.is_main():
            discard_partial_checkpoints(out)
        ranks.wait_for_all()
        yield


def _demand_equal_shares(config: RunConfig) -> None:
    _, groups = ranks.batch_place()
    if config.accumulate % groups:
        raise RunError(
            f"{groups} processes cannot share the {config.accumulate} batches of a step; set accumulate to "
            "a multiple of the number of processes"
        )


def _save(learner: Learner, recorder: Recorder | None) -> None:
    if recorder is not None:
        recorder.flush()  # every line up to this step must be on disk before a checkpoint says that it is
    if learner.sharded:
        seconds = ranks.from_all_ranks(learner.seconds)[0]
        settings = _settings(learner.task, learner.config)
        state = ShardedState(step=learner.step, seconds=seconds, settings=settings, tensors=_pieces(learner))
        save_sharded_checkpoint(learner.config.out, state, keep_last=learner.config.keep_last)
        return
    with learner.ema.applied():
        ema = {name: tensor.clone() for name, tensor in learner.task.module.state_dict().items()}
    checkpoint = Checkpoint(
        step=learner.step,
        seconds=learner.seconds,
        settings=_settings(learner.task, learner.config),
        module=learner.task.module.state_dict(),
        ema=ema,
        optimizer={
            f"{name}/{key}": tensor
            for name, optimizer in learner.optimizers.items()
            for key, tensor in optimizer.state_dict().items()
        }
        | ({} if learner.posthoc is None else _prefixed("averages/", learner.posthoc.state_dict())),
    )
    save_checkpoint(learner.config.out, checkpoint, keep_last=learner.config.keep_last)


def _restore(learner: Learner, resume: Literal["auto", "new"], allow_changes: bool) -> None:
    config = learner.config
    found = list_checkpoints(config.out)
    if not found:
        return
    if resume == "new":
        raise RunError(f"{config.out} already holds a run; resume it, or choose another folder")
    if is_sharded_checkpoint(found[-1]) != learner.sharded:
        raise RunError(
            f"{found[-1]} was saved {'in pieces' if not learner.sharded else 'whole'} and cannot be gone on from "
            f"{'whole' if not learner.sharded else 'in pieces'}: use --shard as before, or start from exported weights"
        )
    if learner.sharded:
        _restore_pieces(learner, found[-1], allow_changes)
        return
    checkpoint = load_checkpoint(found[-1])
    if not allow_changes:
        _demand_same_settings(checkpoint.settings, checkpoint.step, _settings(learner.task, config))
    module = learner.task.module
    try:
        module.load_state_dict(dict(checkpoint.ema))
        learner.ema.copy_weights()
        module.load_state_dict(dict(checkpoint.module))
    except RuntimeError as error:
        raise RunError(f"the weights in {found[-1]} do not fit the task {learner.task.name!r}: {error}") from error
    for name, optimizer in learner.optimizers.items():
        optimizer.load_state_dict(_without_prefix(name + "/", checkpoint.optimizer))
    if learner.posthoc is not None:
        learner.posthoc.load_state_dict(_without_prefix("averages/", checkpoint.optimizer))
    learner.step, learner.seconds = checkpoint.step, checkpoint.seconds


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _restore_pieces(learner: Learner, folder: Path, allow_changes: bool) -> None:
    """Read this rank's pieces, on as many ranks as there are now."""
    step, seconds, settings = load_description(folder)
    if not allow_changes:
        _demand_same_settings(settings, step, _settings(learner.task, learner.config))
    tensors = _pieces(learner)
    for label in sharded_names(folder):
        if label.startswith("optimizer/") and label not in tensors:
            phase, state = label.removeprefix("optimizer/").split("/", 1)
            tensors[label] = learner.optimizers[phase].empty_state(state)
    load_sharded_tensors(folder, tensors)
    for name, optimizer in learner.optimizers.items():
        prefix = f"optimizer/{name}/"
        mine = {label.removeprefix(prefix): x for label, x in tensors.items() if label.startswith(prefix)}
        optimizer.load_state_dict(mine)
    learner.step, learner.seconds = step, seconds


def _pieces(learner: Learner) -> dict[str, Tensor]:
    """All that a checkpoint holds, as it lies on this rank."""
    return {
        **{f"module/{name}": tensor.detach() for name, tensor in learner.task.module.state_dict().items()},
        **{f"ema/{name}": tensor for name, tensor in learner.ema.average.items()},
        **{
            f"optimizer/{name}/{label}": tensor
            for name, optimizer in learner.optimizers.items()
            for label, tensor in optimizer.state_dict().items()
        },
    }


def _settings(task: Task, config: RunConfig) -> dict[str, Any]:
    optim = {phase.name: as_json(phase.optim) for phase in task.phases}
    return {"task": task.name, "run": as_json(config), "optim": optim, "settings": as_json(task.settings)}


def _demand_same_settings(old: Mapping[str, Any], step: int, new: Mapping[str, Any]) -> None:
    changes = changed_fields(old, new)
    for name in FREE_FIELDS:
        changes.pop(f"run.{name}", None)
    changes = {name: pair for name, pair in changes.items() if pair != ("absent", None)}  # an option since then, off
    if "run.steps" in changes:
        old_steps, new_steps = int(str(changes["run.steps"][0])), int(str(changes["run.steps"][1]))
        configs = [optim_config_from_json(values) for values in new["optim"].values()]
        done = range(step)
        if all(optim.rate(s, old_steps) == optim.rate(s, new_steps) for optim in configs for s in done):
            del changes["run.steps"]
    if changes:
        listed = "; ".join(f"{name} was {old!r} and is {now!r}" for name, (old, now) in changes.items())
        raise RunError(
            f"this run was started with other settings: {listed}. Restore them, choose another folder, "
            "or allow changes (the loss curve is then no longer that of one run)"
        )


def _new_learner(task: Task, config: RunConfig) -> Learner:
    phases = tuple(task.phases)
    names = {id(parameter): name for name, parameter in task.module.named_parameters()}

    def named(parameters: Sequence[nn.Parameter]) -> dict[str, nn.Parameter]:
        assert all(id(parameter) in names for parameter in parameters), "a phase trains parameters outside task.module"
        return {names[id(parameter)]: parameter for parameter in parameters}

    optimizers = {
        phase.name: PhaseOptimizer(named(phase.parameters), named(phase.muon_parameters), phase.optim)
        for phase in phases
    }
    return Learner(
        task=task,
        config=config,
        phases=phases,
        objectives={phase.name: _objective(phase) for phase in phases},
        optimizers=optimizers,
        ema=ExponentialAverage(task.module, config.ema_decay),
        posthoc=PowerAverages(task.module) if config.posthoc_every is not None else None,
    )


def _objective(phase: Phase) -> nn.Module:
    objective = Objective(phase)
    averaged = ranks.world_size() > 1 and not is_sharded(phase.parameters)
    return DistributedDataParallel(objective) if averaged else objective


@torch.no_grad()
def _write_samples(learner: Learner, recorder: Recorder) -> None:
    task, chosen = learner.task, learner.config.sample_weights
    folder = learner.config.out / "samples"
    folder.mkdir(exist_ok=True)
    task.module.eval()
    for weights in ("ema", "raw") if chosen == "both" else (chosen,):
        with learner.ema.applied() if weights == "ema" else nullcontext():
            values = task.write_samples(folder, learner.step, weights == "ema")
        if values:
            recorder.evaluate(learner.step, {f"{weights}/{name}": float(value) for name, value in values.items()})
    task.module.train()


def _require_gradients(optimizers: Mapping[str, PhaseOptimizer], active: str) -> None:
    if len(optimizers) == 1:
        return
    for optimizer in optimizers.values():
        for parameter in optimizer.parameters.values():
            parameter.requires_grad_(False)
    for parameter in optimizers[active].parameters.values():
        parameter.requires_grad_(True)


def _demand_finite(what: str, phase: Phase, index: int, value: float) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"the {what} of phase {phase.name!r} is {value} at step {index}; nothing was saved after the last "
            "checkpoint. Lower the learning rate or the clipping norm (and allow changes), then run again"
        )


def _due(step_count: int, every: int | None) -> bool:
    return every is not None and step_count % every == 0


@contextmanager
def _thread_count(threads: int | None) -> Iterator[None]:
    former = torch.get_num_threads()
    torch.set_num_threads(threads or former)
    try:
        yield
    finally:
        torch.set_num_threads(former)
