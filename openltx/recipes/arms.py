"""Runs the arms of an experiment on equal terms and puts what they gave side by side.

    OUT/<arm>/seed<s>/    the run of one arm with one seed (resumable, like every run), and its result.json
    OUT/report.md, .json  a row for each arm: the mean over its seeds, and half the distance of the extremes

An arm whose result is there is not run again. A run whose loss is no number any more is a result too: "diverged".
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Protocol, TypeVar, runtime_checkable

from openltx.eval.report import Cell, markdown_table
from openltx.training.state import write_json


@runtime_checkable
class NamedArm(Protocol):
    """One way of training."""

    @property
    def name(self) -> str: ...


ArmT = TypeVar("ArmT", bound=NamedArm)


def run_arms(
    arms: Sequence[ArmT],
    out: Path,
    seeds: Sequence[int],
    result: Callable[[ArmT, int, Path], dict[str, Any] | None],
    columns: Mapping[str, str],
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """The "seeds" and "arms", a row of numbers for each; None if a run was stopped before its end.

    ``result`` trains and measures one arm with one seed in a folder (None: stopped); ``columns`` are titles and the
    names of the numbers under them.
    """
    results: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for seed in seeds:  # seed by seed, so that whatever is there after a while compares all arms
        for arm in arms:
            path = arm_folder(out, arm, seed) / "result.json"
            if not path.exists():
                say(f"{arm.name}, seed {seed}")
                numbers = result(arm, seed, path.parent)
                if numbers is None:
                    return None
                write_json(path, numbers)
            results[arm.name].append(json.loads(path.read_text()))
    rows = {name: _spread(found, columns.values()) for name, found in results.items()}
    return {"seeds": list(seeds), "arms": rows}


def arm_folder(out: Path, arm: NamedArm, seed: int) -> Path:
    """Where the run of an arm with a seed lies."""
    return out / arm.name.replace(" ", "-").replace(",", "").replace("=", "") / f"seed{seed}"


def to_markdown(report: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """The question and a row for each arm, with a column for everything that was measured."""
    arms = report["arms"]
    measured = {t: key for t, key in columns.items() if any(row.get(key) is not None for row in arms.values())}
    names = {name: f"{name} ({row['diverged']} diverged)" if "diverged" in row else name for name, row in arms.items()}
    rows = [[names[name], *(_cell(row.get(key)) for key in measured.values())] for name, row in arms.items()]
    seeds = f"{len(report['seeds'])} seeds"
    return f"{report['question']} (Paper {report['paper']}.)\n\n{markdown_table([seeds, *measured], rows)}\n"


def _spread(found: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> dict[str, Any]:
    """Each number as (mean, half the distance of the extremes) over the seeds; None where it was not measured."""
    diverged = [result["diverged"] for result in found if "diverged" in result]
    spread: dict[str, Any] = {"diverged": len(diverged)} if diverged else {}
    for key in keys:
        values = [result[key] for result in found if result.get(key) is not None]
        spread[key] = [float(mean(values)), (max(values) - min(values)) / 2] if values else None
    return spread


def _cell(value: Sequence[float] | None) -> Cell:
    return None if value is None else f"{value[0]:.4g} ± {value[1]:.2g}"
