"""Settings go through JSON and back, are checked, and differences are named."""

import json
import math
from pathlib import Path

import pytest

from openltx.errors import RunError
from openltx.training.config import (
    OptimConfig,
    RunConfig,
    as_json,
    changed_fields,
    optim_config_from_json,
    run_config_from_json,
)
from openltx.training.randomness import derived_seed


def test_settings_survive_json():
    run = RunConfig(steps=7, out=Path("runs/x"), clip_norm=math.inf, max_seconds=3.5, threads=2)
    assert run_config_from_json(json.loads(json.dumps(as_json(run)))) == run
    optim = OptimConfig(kind="muon", lr=1e-4, betas=(0.8, 0.9), schedule="trapezoid")
    assert optim_config_from_json(json.loads(json.dumps(as_json(optim)))) == optim


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("accumulate", 0), ("ema_decay", 1.0), ("clip_norm", 0.0), ("threads", 0)]
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: float):
    with pytest.raises(RunError, match=field):
        RunConfig(**{"steps": 1, "out": Path("x"), field: value})  # type: ignore[arg-type]


def test_settings_of_something_else_are_refused():
    with pytest.raises(RunError, match="colour"):
        run_config_from_json({"steps": 1, "out": "x", "clip_norm": 1.0, "colour": "red"})
    with pytest.raises(RunError, match="betas"):
        optim_config_from_json({"lr": 1.0})


def test_changes_are_named_by_their_path():
    old, new = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 3}
    assert changed_fields(old, new) == {"a.c": ([1], [2]), "d": (2, "absent"), "e": ("absent", 3)}


def test_derived_seeds_depend_on_every_key_and_its_place():
    seeds = {
        derived_seed(*keys) for keys in [(0,), (0, 0), (0, 0, 0), (0, 1), (1, 0), (0, "a"), (0, "a", 1), (0, 1, "a")]
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
