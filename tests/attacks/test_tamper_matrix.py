"""Every attack on a stored ledger is found offline, by what has to find it, and is missed without that."""

from collections.abc import Mapping

import pytest

from bench.tampering import ATTACKS as KEYLESS
from bench.tampering import Outcome
from tests.attacks.tamper import ATTACKS, LOOKS, MISSED, Scene, attacked, found_by, outcomes, scene, text

# attack: what finds it, and what the last of those says it is
FOUND = {
    "edit": (("checkpoint",), "edited"),
    "paste": (("checkpoint",), "edited"),
    "reorder": (("checkpoint",), "reordered"),
    "replay": (("checkpoint",), "replayed"),
    "delete": (("checkpoint",), "deleted"),
    "truncate": (("checkpoint",), "truncated"),
    "replace": (("checkpoint",), "relocated"),
    "rolled-back": (("pinned", "mark", "witness"), "rolled-back"),
    "re-signed": (("mark", "witness"), "rolled-back"),
    "rewrite-old": (("pinned", "mark", "witness"), "split-view"),
    "rewrite-new": (("mark", "witness"), "split-view"),
    "split-view": (("mark", "witness"), "split-view"),
    "forge": (("statement",), "forged-signature"),
    "forge-signed": (("statement", "required"), "forged-signature"),
    "forge-unsigned": (("required",), "unsigned"),
}
# What an application notices that reads its sealed values: the seal is bound to stream, number and key.
OPENED = {"paste", "reorder", "replay", "delete", "replace"}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def table(before: Scene, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, str]]:
    return {name: attacked(before, name, tmp_path_factory.mktemp(name)) for name in ATTACKS}


def test_there_are_twelve_attacks_and_more() -> None:
    assert FOUND.keys() == ATTACKS.keys()
    assert len(ATTACKS) >= 12
    assert KEYLESS.keys() <= ATTACKS.keys()


@pytest.mark.parametrize("name", FOUND)
def test_an_attack_is_found_by_what_has_to_find_it(table: Mapping[str, Mapping[str, str]], name: str) -> None:
    by, kind = FOUND[name]
    assert found_by(table[name]) == by
    first = "key" if table[name]["key"] != MISSED else by[-1]
    assert table[name][first] == kind


@pytest.mark.parametrize("name", [name for name, (by, _) in FOUND.items() if by != ("checkpoint",)])
def test_without_that_the_same_attack_is_missed(table: Mapping[str, Mapping[str, str]], name: str) -> None:
    """The twin: whoever looks with anything else sees a log that is perfect in itself."""
    by, _ = FOUND[name]
    others = [look for look in LOOKS if look not in by and not (by == ("statement",) and look != "AEAD")]
    assert {table[name][look] for look in others} == {MISSED}


@pytest.mark.parametrize("name", KEYLESS)
def test_whoever_only_reads_notices_what_the_seal_is_bound_to(
    table: Mapping[str, Mapping[str, str]], name: str
) -> None:
    """The twin of the seven that take no key: without the signed checkpoint, an edit or a cut end goes unnoticed."""
    assert (table[name]["AEAD"] != MISSED) is (name in OPENED)


def test_the_operator_is_found_by_no_seal(table: Mapping[str, Mapping[str, str]]) -> None:
    assert {table[name]["AEAD"] for name in FOUND if name not in KEYLESS} == {MISSED}


def test_witnesses_and_marks_tell_what_the_log_hides(table: Mapping[str, Mapping[str, str]]) -> None:
    """Layered, everything is found; no single anchor finds all of it."""
    for look in LOOKS:
        assert any(cells[look] == MISSED for cells in table.values())
    layers = ("mark", "required")
    assert all(any(cells[look] != MISSED for look in layers) for cells in table.values())


def test_the_table_can_be_read(table: Mapping[str, Mapping[str, str]]) -> None:
    lines = text(table).splitlines()
    assert len(lines) == len(ATTACKS) + 1
    assert lines[-1].endswith("required")


def test_the_outcomes_beside_other_packages() -> None:
    assert outcomes() == dict.fromkeys(KEYLESS, Outcome.CAUGHT)
