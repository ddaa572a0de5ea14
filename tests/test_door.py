"""The public door: what ``import openltx`` promises is there."""

import importlib

import pytest

import openltx


@pytest.mark.parametrize("name", openltx.__all__)
def test_every_promised_name_can_be_reached(name: str) -> None:
    assert getattr(openltx, name) is not None


@pytest.mark.parametrize("name", sorted(openltx._SUBPACKAGES))
def test_every_subpackage_can_be_reached(name: str) -> None:
    assert getattr(openltx, name) is importlib.import_module(f"openltx.{name}")


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="generat"):
        _ = openltx.generat


def test_every_error_is_an_openltx_error() -> None:
    errors = [getattr(openltx, name) for name in openltx.__all__ if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(error, openltx.OpenLTXError) for error in errors)


def test_the_lower_doors_are_where_the_documentation_says() -> None:
    assert callable(openltx.checkpoints.load_transformer)
    assert callable(openltx.checkpoints.load_vae)
    assert callable(openltx.geometry.token_positions)
