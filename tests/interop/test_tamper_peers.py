"""The seven attacks that take no key, on the event store of another library: what its encryption leaves open."""

import pytest

from bench.tampering import ATTACKS, Outcome, outcome, rows, text

pytest.importorskip("eventsourcing")

from bench.tamper_eventsourcing import Eventsourcing, EventsourcingInClear


def test_a_cipher_without_associated_data_notices_two_of_seven() -> None:
    found = {attack: outcome(Eventsourcing, attack) for attack in ATTACKS}
    assert {attack for attack, one in found.items() if one is Outcome.CAUGHT} == {"edit", "delete"}
    assert set(found.values()) == {Outcome.CAUGHT, Outcome.MISSED}


def test_without_the_cipher_only_a_gap_is_noticed() -> None:
    assert outcome(EventsourcingInClear, "edit") is Outcome.MISSED
    assert outcome(EventsourcingInClear, "delete") is Outcome.CAUGHT


def test_an_unkeyed_chain_that_can_be_recomputed_counts_as_missed() -> None:
    found = {"a": dict.fromkeys(ATTACKS, Outcome.UNTIL_RECOMPUTED), "b": dict.fromkeys(ATTACKS, Outcome.CAUGHT)}
    assert [row.value for row in rows(found)] == [0, 7]
    assert all(title in text(found) for title in ATTACKS.values())
