"""The threat model is what the code does: its table is made by the attacks, and each test it names is there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.attacks.ablation import row, rows, table
from tests.attacks.arena import Stop

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "threat-model.md"
COMPROMISES = [
    "stolen service key",
    "stolen CA key",
    "stolen feed key",
    "stolen log key",
    "compromised authority host",
    "compromised service host",
    "database writer",
    "root on the ledger host, rogue operator",
    "rolled-back backup",
    "stolen tenant key, or the key-encryption key",
    "a witness that lies or is away",
    "network attacker",
    "malicious co-tenant uid",
    "slow or wrong clock",
    "authority partition",
    "disk full",
    "stolen join token",
    "supply chain",
]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("threat_model", ROOT / "scripts" / "threat_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_page_is_what_the_attacks_show_now() -> None:
    page = PAGE.read_text("utf-8")
    assert page == script().replaced(page, table()), "run scripts/threat_model.py and look at the difference"


def test_every_attack_is_stopped_by_something() -> None:
    assert all(found.first for found in rows())


def test_a_control_that_was_not_really_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.attacks import ablation  # noqa: PLC0415  # patched here only
    from tests.attacks.catalogue import Attack  # noqa: PLC0415  # patched here only

    stubborn = Attack("stubborn", "edge", lambda _off: Stop("edge", "HBK-402", "the same"))
    open_door = Attack("open door", "edge", lambda _off: None)
    monkeypatch.setattr(ablation, "attacks", lambda: {"stubborn": stubborn, "open door": open_door})
    with pytest.raises(AssertionError, match="is off and stopped it"):
        row("stubborn")
    with pytest.raises(AssertionError, match="works with every control on"):
        row("open door")


def test_the_page_has_every_compromise_and_no_empty_cell() -> None:
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    matrix = {
        cells[0]: cells[1:] for line in lines if len(cells := [it.strip() for it in line.strip("|").split("|")]) == 6
    }
    assert [name for name in matrix if name != "compromise"] == COMPROMISES
    assert all(all(cells) for cells in matrix.values())


def test_every_test_the_page_names_is_there() -> None:
    named = re.findall(r"`((?:tests/\w+/)?test_\w+\.py)(?:::(\w+))?`", PAGE.read_text("utf-8"))
    assert len(named) > len(COMPROMISES)
    for file, name in named:
        text = (ROOT / file if "/" in file else Path(__file__).parent / file).read_text("utf-8")
        assert not name or f"def {name}(" in text, f"{file}::{name}"


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        script().replaced("no markers", "table")
