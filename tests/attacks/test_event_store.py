"""Attacks on an event store, each carried out; and carried out again with the controls in its way left out."""

import pytest

from hauberk.errors import Denied
from hauberk.records import Redacted
from tests.attacks.ablation import ablate, attacks
from tests.attacks.arena import EVIL, ORDERS
from tests.attacks.event_store import Paid, house, paid

STOPS = {
    "events: whose it is, without decrypt": ["records"],
    "events: a stream, without read": ["records HBK-300"],
    "events: a forgotten customer, again": ["records", "records"],
    "events: ciphertext pasted over another": ["records HBK-710"] * 3,
    "events: keys of two customers exchanged": ["records HBK-710"],
    "events: an old database put back": ["records HBK-722", "records HBK-713"],
    "events: rewritten with the log's key": ["records HBK-722", "records HBK-713", "records HBK-710"],
    "events: made up by the operator": ["records HBK-710"],
    "events: made up, and signed by a key of his own": ["records HBK-710"],
}


def test_every_attack_of_this_kind_is_tried() -> None:
    assert STOPS.keys() == {attack.name for attack in attacks().values() if attack.layer == "events"}


@pytest.mark.parametrize("name", STOPS)
def test_an_attack_is_stopped_and_what_is_next_stops_it_too(name: str) -> None:
    assert [stop.short for stop in ablate(name)] == STOPS[name]


@pytest.mark.parametrize("name", STOPS)
def test_with_the_controls_in_its_way_left_out_the_same_attack_works(name: str) -> None:
    controls = frozenset(stop.control for stop in ablate(name))
    assert attacks()[name].attempt(controls) is None


def test_of_one_event_each_sees_what_the_policies_of_the_shop_give_him() -> None:
    with house(frozenset()) as here:
        here.take("ann", "bob")
        assert here.read("payment-2") == [paid("bob")]
        (shown,) = here.read("payment-2", by=ORDERS)
        assert isinstance(shown, Paid)
        assert isinstance(shown.customer, Redacted)
        assert isinstance(shown.email, Redacted)
        with pytest.raises(Denied):
            here.read("payment-2", by=EVIL)
        here.audit()


def test_a_second_start_a_new_payment_and_an_erasure_trouble_none_of_the_guards() -> None:
    with house(frozenset()) as here:
        here.take("ann")
        here.take("bob")
        here.forget("ann")
        here.start()
        here.audit()
        assert here.read()[1:] == [paid("bob")]
