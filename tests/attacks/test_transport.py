"""Attacks on the wire, each carried out; and carried out again with the controls in its way left out."""

import socket
import ssl

import pytest

from examples.payments.intruder import exchange
from tests.attacks.ablation import ablate, attacks
from tests.attacks.arena import ADMIT, CONNECTION, ORDERS, TICKETS, arena, careless, identity
from tests.attacks.catalogue import SHOW, revoke

STOPS = {
    "plaintext to the mutual TLS port": ["transport HBK-101", "transport HBK-102", "policy HBK-300"],
    "downgrade to TLS 1.2": ["transport HBK-101"],
    "no client certificate": ["transport HBK-101", "transport HBK-102", "policy HBK-300"],
    "right id from a rogue CA": ["transport HBK-101", "transport HBK-101"],
    "right id from the CA of a federated domain": ["transport HBK-101"],
    "expired certificate": ["transport HBK-101", "transport HBK-101"],
    "an impostor answers for payment-service": ["transport HBK-103"],
    "connection kept beyond its maximum age": ["transport HBK-104"],
}


def test_every_attack_of_this_layer_is_tried() -> None:
    assert STOPS.keys() == {attack.name for attack in attacks().values() if attack.layer == "transport"}


@pytest.mark.parametrize("name", STOPS)
def test_an_attack_is_stopped_and_what_is_next_stops_it_too(name: str) -> None:
    assert [stop.short for stop in ablate(name)] == STOPS[name]


@pytest.mark.parametrize("name", STOPS)
def test_with_the_controls_in_its_way_left_out_the_same_attack_works(name: str) -> None:
    controls = frozenset(stop.control for stop in ablate(name))
    assert attacks()[name].attempt(controls) is None


def resume(off: frozenset[str], *, after_revocation: bool) -> tuple[bool, bool]:
    """Connect, then again with the session of the first time; return whether it was resumed and whether served."""
    with arena(off) as ground:
        context = careless(identity(ORDERS))
        with socket.create_connection(("127.0.0.1", ground.port), 5.0) as plain, context.wrap_socket(plain) as wire:
            assert exchange(wire, SHOW)["status"] == 200
            session = wire.session
        if after_revocation:
            revoke(ground)
        try:
            with (
                socket.create_connection(("127.0.0.1", ground.port), 5.0) as plain,
                context.wrap_socket(plain, session=session) as wire,
            ):
                return bool(wire.session_reused), exchange(wire, SHOW)["status"] == 200
        except ssl.SSLError:
            return False, False


def test_a_session_is_never_resumed() -> None:
    assert resume(frozenset(), after_revocation=False) == (False, True)


def test_with_session_tickets_on_it_would_be() -> None:
    assert resume(frozenset({TICKETS}), after_revocation=False) == (True, True)


def test_even_a_resumed_session_of_a_revoked_peer_is_refused_at_the_handshake_or_by_the_guard() -> None:
    assert resume(frozenset(), after_revocation=True) == (False, False)
    assert resume(frozenset({TICKETS}), after_revocation=True)[1] is False
    assert resume(frozenset({TICKETS, ADMIT}), after_revocation=True)[1] is False


def test_with_tickets_on_and_nobody_looking_again_a_revoked_peer_goes_on() -> None:
    assert resume(frozenset({TICKETS, ADMIT, CONNECTION}), after_revocation=True) == (True, True)


def test_a_failed_handshake_is_recorded_and_names_nobody() -> None:
    with arena() as ground:
        ground.send(None, SHOW)
        assert ground.stop().short == "transport HBK-101"
        (entry,) = ground.entries()
        assert "actor" not in entry
