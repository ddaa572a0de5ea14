"""The saved state of a run: folders of safetensors and JSON that are there completely or not at all.

    <out>/checkpoints/step_00001234/
        module.safetensors      the task's module (its state_dict)
        ema.safetensors         the same with the averaged weights: what one exports
        optimizer.safetensors   "<phase>/<state>:<parameter>", and "averages/<length>:<parameter>" (posthoc.py)
        state.json              step, seconds of training so far
        run.json                settings of run, task and optimizers

        pieces/                 instead of the three, if the weights lie in pieces on several ranks: see
                                `distributed.checkpoint`; "module/...", "ema/...", "optimizer/<phase>/..."

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

from openltx.distributed import ranks
from openltx.errors import RunError

PARTIAL, PIECES = ".partial_", "pieces"
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


@dataclass(frozen=True, kw_only=True)
class ShardedState:
    """The same where every rank has its pieces of all `tensors`."""

    step: int
    seconds: float
    settings: Mapping[str, object]
    tensors: Mapping[str, Tensor]


def save_checkpoint(out: Path, checkpoint: Checkpoint, *, keep_last: int) -> Path:
    """Write the checkpoint below `out` atomically and remove all but the newest `keep_last`; returns its folder."""
    folder = _folder(out, checkpoint)
    partial = folder.with_name(PARTIAL + folder.name)
    discard_partial_checkpoints(out)
    try:
        partial.mkdir(parents=True)
        for part in PARTS:
            tensors = {name: tensor.detach().contiguous() for name, tensor in getattr(checkpoint, part).items()}
            save_file(tensors, partial / f"{part}.safetensors")
        _finish(partial, folder, checkpoint)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(f"cannot write the checkpoint {folder}: {error}; the earlier checkpoints are intact") from error
    for old in list_checkpoints(out)[:-keep_last]:
        _remove(old)
    return folder


def save_sharded_checkpoint(out: Path, state: ShardedState, *, keep_last: int) -> None:
    """Every rank writes its pieces into one folder, which rank 0 then gives its name; all ranks must call it."""
    from openltx.distributed.checkpoint import save_pieces  # torch's part of it takes a second to import

    folder = _folder(out, state)
    partial = folder.with_name(PARTIAL + folder.name)
    if ranks.is_main():
        discard_partial_checkpoints(out)
        (partial / PIECES).mkdir(parents=True)
    ranks.wait_for_all()
    save_pieces(partial / PIECES, state.tensors)
    if ranks.is_main():
        _finish(partial, folder, state)
        for old in list_checkpoints(out)[:-keep_last]:
            _remove(old)
    ranks.wait_for_all()


def _folder(out: Path, checkpoint: Checkpoint | ShardedState) -> Path:
    return out / "checkpoints" / f"step_{checkpoint.step:08d}"


def _finish(partial: Path, folder: Path, checkpoint: Checkpoint | ShardedState) -> None:
    """Describe what was written, make sure that it is on the disk, and give it its name."""
    write_json(partial / "state.json", {"step": checkpoint.step, "seconds": checkpoint.seconds})
    write_json(partial / "run.json", checkpoint.settings)
    for path in (*partial.rglob("*"), partial):
        _sync(path)
    if folder.exists():
        _remove(folder)
    partial.rename(folder)
    _sync(folder.parent)


def is_sharded_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint was saved in pieces."""
    return (folder / PIECES).is_dir()


def load_description(folder: Path) -> tuple[int, float, Mapping[str, Any]]:
    """Step, seconds and settings of a checkpoint; anything missing or damaged raises RunError."""
    try:
        state = json.loads((folder / "state.json").read_text())
        return state["step"], state["seconds"], json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"the checkpoint {folder} is damaged ({error}); delete it to go on from the one before"
        ) from error


def sharded_names(folder: Path) -> list[str]:
    """The names of all tensors in a checkpoint that was saved in pieces."""
    from openltx.distributed.checkpoint import stored_tensors

    return list(stored_tensors(folder / PIECES))


def load_sharded_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors`, in place, from a checkpoint that was saved in pieces; all ranks must call it."""
    from openltx.distributed.checkpoint import load_pieces

    load_pieces(folder / PIECES, tensors)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder; anything missing or damaged in it raises RunError."""
    step, seconds, settings = load_description(folder)
    try:
        parts = {part: load_file(folder / f"{part}.safetensors") for part in PARTS}
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the checkpoint {folder} is damaged ({error}); delete it to go on from the one before"
        ) from error
    return Checkpoint(step=step, seconds=seconds, settings=settings, **parts)


def list_checkpoints(out: Path) -> list[Path]:
    """The complete checkpoint folders of a run, oldest first."""
    return sorted((out / "checkpoints").glob("step_*"))


def load_weights(source: Path, weights: Literal["ema", "raw"] = "ema") -> dict[str, Tensor]:
    """The weights in a checkpoint folder, or in the newest one of a run's folder."""
    folder, part = _checkpoint_of(source), "ema" if weights == "ema" else "module"
    if is_sharded_checkpoint(folder):
        from openltx.distributed.checkpoint import load_whole

        return load_whole(folder / PIECES, f"{part}/")
    try:
        return load_file(folder / f"{part}.safetensors")
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
