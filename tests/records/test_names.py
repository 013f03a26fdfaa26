"""The public names of the records plane."""

import importlib

import pytest

from hauberk import records
from tests.house.test_facade import imported_modules


@pytest.mark.parametrize("name", records.__all__)
def test_every_public_name_loads_from_where_it_is(name: str) -> None:
    home = importlib.import_module(records._HOME[name])
    assert getattr(records, name) is getattr(home, name)


def test_nothing_is_loaded_until_a_name_is_used() -> None:
    assert set(records._HOME) == set(records.__all__)
    assert imported_modules("import hauberk.records") == ["hauberk", "hauberk.records"]


def test_no_name_is_that_of_a_module_here() -> None:
    for name in records.__all__:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"hauberk.records.{name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = records.does_not_exist
