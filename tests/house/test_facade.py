"""The facade: cheap to import, complete, and honest about what it offers."""

import importlib
import subprocess
import sys

import pytest

import hauberk
from hauberk import errors
from hauberk.core.decision import Layer


def imported_modules(statement: str) -> list[str]:
    program = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_facade_loads_at_most_three_modules() -> None:
    assert len(imported_modules("import hauberk")) <= 3


def test_an_embedded_runtime_loads_nothing_that_is_not_configured() -> None:
    loaded = imported_modules("from hauberk import Runtime")
    unused = {"asyncio", "psycopg", "httpx2", "cwt", "hauberk.records.cosign", "hauberk.records.store"}
    assert unused.isdisjoint(loaded)


@pytest.mark.parametrize("name", hauberk.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(hauberk, name) is not None


def test_the_homes_of_names_are_where_the_names_are() -> None:
    for name, home in hauberk._HOME.items():
        assert hasattr(importlib.import_module(home), name)
    assert sorted(hauberk._HOME) == hauberk.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = hauberk.does_not_exist


def test_every_code_has_a_family_and_constant_text() -> None:
    for code, spec in errors.REGISTRY.items():
        assert code.startswith("HBK-")
        assert len(code) == 7
        assert spec.public
        assert "%" not in spec.public
        assert "{" not in spec.public


def test_an_error_shows_nothing_private() -> None:
    error = errors.IdentityError("HBK-205", "proven unix:uid:0 on db-7.corp", secret="s3cret")
    assert "corp" not in str(error) + repr(error)
    assert "s3cret" not in str(error) + repr(error)
    assert "s3cret" in error.diagnostics()


def test_a_decision_cannot_be_ignored_by_accident() -> None:
    decision = hauberk.Decision(hauberk.Verdict.DENY, Layer.POLICY, "HBK-300")
    with pytest.raises(TypeError):
        bool(decision)
    with pytest.raises(hauberk.Denied):
        decision.enforce()
