"""Gives the tests of this folder their toy task, which is also a script for a process of its own."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy_task.py."""
    spec = importlib.util.spec_from_file_location("toy_task", Path(__file__).with_name("toy_task.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_task"] = module
    spec.loader.exec_module(module)
    return module
