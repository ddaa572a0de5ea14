"""The saved state of a run: folders of safetensors and JSON that are there completely or not at all.

    <out>/checkpoints/step_00001234/
        module.safetensors      the task's module (its state_dict)
        ema.safetensors         the same with the averaged weights: what one exports
        optimizer.safetensors   "<phase>/<state>:<parameter>", and "averages/<length>:<parameter>" (posthoc.py)
        state.json              step, seconds of training so far
        run.json                settings of run, task and optimizers

A folder is written under another name, synced to disk and then renamed, so a crash at any moment leaves the previous
checkpoint. Generator states are not saved: all randomness is derived from (seed, step), see `randomness`.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from openltx.errors import RunError

PARTIAL = ".partial_"
PARTS = ("module", "ema", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on after `step` completed steps."""

    step: int
    seconds: float
    settings: Mapping[str, object]  # as JSON
    module: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def save_checkpoint(out: Path, checkpoint: Checkpoint, *, keep_last: int) -> Path:
    """Write the checkpoint below `out` atomically and remove all but the newest `keep_last`; returns its folder."""
    folder = out / "checkpoints" / f"step_{checkpoint.step:08d}"
    partial = folder.with_name(PARTIAL + folder.name)
    discard_partial_checkpoints(out)
    try:
        partial.mkdir(parents=True)
        for part in PARTS:
            tensors = {name: tensor.detach().contiguous() for name, tensor in getattr(checkpoint, part).items()}
            save_file(tensors, partial / f"{part}.safetensors")
        write_json(partial / "state.json", {"step": checkpoint.step, "seconds": checkpoint.seconds})
        write_json(partial / "run.json", checkpoint.settings)
        for path in (*partial.iterdir(), partial):
            _sync(path)
        if folder.exists():
            _remove(folder)
        partial.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(f"cannot write the checkpoint {folder}: {error}; the earlier checkpoints are intact") from error
    for old in list_checkpoints(out)[:-keep_last]:
        _remove(old)
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder; anything missing or damaged in it raises RunError."""
    try:
        state = json.loads((folder / "state.json").read_text())
        settings = json.loads((folder / "run.json").read_text())
        parts = {part: load_file(folder / f"{part}.safetensors") for part in PARTS}
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(
            f"the checkpoint {folder} is damaged ({error}); delete it to go on from the one before"
        ) from error
    return Checkpoint(step=state["step"], seconds=state["seconds"], settings=settings, **parts)


def list_checkpoints(out: Path) -> list[Path]:
    """The complete checkpoint folders of a run, oldest first."""
    return sorted((out / "checkpoints").glob("step_*"))


def load_weights(source: Path, weights: Literal["ema", "raw"] = "ema") -> dict[str, Tensor]:
    """The weights in a checkpoint folder, or in the newest one of a run's folder."""
    folder = _checkpoint_of(source)
    try:
        return load_file(folder / ("ema.safetensors" if weights == "ema" else "module.safetensors"))
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read the weights in {folder}: {error}") from error


def load_settings(source: Path) -> dict[str, Any]:
    """The architecture, as JSON values, of the model in a checkpoint folder, or in the newest one of a run's folder."""
    settings = load_task_settings(source)
    if "model" not in settings:
        raise RunError(f"cannot read what was trained from {_checkpoint_of(source) / 'run.json'}: it names no model")
    return settings["model"]


def load_task_settings(source: Path) -> dict[str, Any]:
    """All settings of the task, as JSON values, of a checkpoint folder, or of the newest one of a run's folder."""
    folder = _checkpoint_of(source)
    try:
        return json.loads((folder / "run.json").read_text())["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"cannot read what was trained from {folder / 'run.json'}: {error}") from error


def _checkpoint_of(source: Path) -> Path:
    if (source / "state.json").exists():
        return source
    found = list_checkpoints(source)
    if not found:
        raise RunError(f"{source} holds no checkpoint; give the folder of a run or one of its checkpoints")
    return found[-1]


def discard_partial_checkpoints(out: Path) -> None:
    """Remove what an interrupted save left behind."""
    for partial in (out / "checkpoints").glob(PARTIAL + "*"):
        shutil.rmtree(partial)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically, indented."""
    temporary = path.with_name(PARTIAL + path.name)
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)


@contextmanager
def exclusive_run(out: Path) -> Iterator[None]:
    """Create the run's folder and hold it: a second run in the same folder raises RunError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise RunError(f"cannot write to the run's folder {out}: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"another run is writing to {out}; wait for it, or choose another folder") from error
        yield


def _remove(folder: Path) -> None:
    """Delete a checkpoint so that an interruption never leaves half of it under its own name."""
    doomed = folder.with_name(PARTIAL + "old_" + folder.name)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
