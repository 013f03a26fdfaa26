"""The registry of open connections: who is closed, how, and who is left alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.core.clock import ManualClock
from hauberk.core.ports import PeerCredentials
from hauberk.core.principal import ANONYMOUS, Kind
from hauberk.crypto.x509 import CertificateAuthority, SvidInfo
from hauberk.transport.connection import (
    AGED,
    REVOKED,
    UNTRUSTED,
    Connection,
    Connections,
    local_principal,
    peer_principal,
)
from tests.transport.parties import CA, DOMAIN, issued, named

NEW = CertificateAuthority.create(DOMAIN)
FRONT, BACK = issued("front")[1], issued("back")[1]
RENEWED = issued("front", ca=NEW)[1]


class Open:
    """A connection and what it was told."""

    def __init__(self, registry: Connections, peer: SvidInfo | None) -> None:
        self.codes: list[str] = []
        self.connection: Connection = registry.register(peer, self.codes.append)


def test_a_revoked_id_closes_every_connection_of_that_id_and_no_other() -> None:
    registry = Connections()
    front, again, back = Open(registry, FRONT), Open(registry, RENEWED), Open(registry, BACK)
    assert registry.close_revoked(ids=[str(named("front"))]) == 2
    assert (front.codes, again.codes, back.codes) == ([REVOKED], [REVOKED], [])


def test_a_revoked_serial_closes_connections_of_that_certificate_only() -> None:
    registry = Connections()
    front, again = Open(registry, FRONT), Open(registry, RENEWED)
    assert registry.close_revoked(serials=[FRONT.serial]) == 1
    assert (front.codes, again.codes) == ([REVOKED], [])


def test_a_dropped_root_closes_connections_of_its_certificates_at_once() -> None:
    registry = Connections()
    old, new, nobody = Open(registry, FRONT), Open(registry, RENEWED), Open(registry, None)
    assert registry.close_untrusted({DOMAIN: (NEW.root_der,)}) == 1
    assert (old.codes, new.codes, nobody.codes) == ([UNTRUSTED], [], [])


def test_a_root_on_its_way_out_ends_connections_of_its_certificates_gently() -> None:
    registry = Connections()
    old, new, nobody = Open(registry, FRONT), Open(registry, RENEWED), Open(registry, None)
    both = {DOMAIN: (NEW.root_der, CA.root_der)}
    assert registry.close_retiring(both) == 1
    assert (old.codes, new.codes, nobody.codes) == ([AGED], [], [])
    assert registry.close_retiring(both) == 0


def test_a_root_on_its_way_in_ends_nothing() -> None:
    registry = Connections()
    front = Open(registry, FRONT)
    assert registry.close_retiring({DOMAIN: (CA.root_der, NEW.root_der)}) == 0
    assert registry.close_retiring({DOMAIN: (CA.root_der,)}) == 0
    assert front.codes == []
    assert registry.close_retiring({DOMAIN: (NEW.root_der, CA.root_der)}) == 1


def test_a_peer_whose_certificate_has_expired_is_untrusted() -> None:
    clock = ManualClock(FRONT.not_after + 1)
    registry = Connections(clock=clock)
    front = Open(registry, FRONT)
    assert registry.close_untrusted({DOMAIN: (CA.root_der,)}) == 1
    assert front.codes == [UNTRUSTED]


def test_age_is_told_once_and_lost_trust_still_afterwards() -> None:
    clock = ManualClock()
    registry = Connections(clock=clock)
    front = Open(registry, FRONT)
    clock.advance(59)
    assert registry.close_older_than(60) == 0
    clock.advance(1)
    assert registry.close_older_than(60) == 1
    assert registry.close_older_than(60) == 0
    assert front.connection.closing == AGED
    registry.close_revoked(ids=[str(named("front"))])
    registry.close_untrusted({})
    assert front.codes == [AGED, REVOKED]


@given(st.lists(st.sampled_from([AGED, REVOKED, UNTRUSTED]), max_size=8))
@settings(max_examples=60)
def test_however_often_it_is_told_a_connection_closes_for_one_lost_trust_at_most(codes: list[str]) -> None:
    registry = Connections()
    front = Open(registry, FRONT)
    for code in codes:
        front.connection.close(code)
    hard = [code for code in codes if code != AGED]
    assert [code for code in front.codes if code != AGED] == hard[:1]
    assert front.codes.count(AGED) <= 1
    assert front.connection.closing == (hard[0] if hard else AGED if codes else "")


def test_a_forgotten_connection_is_told_nothing() -> None:
    registry = Connections()
    front = Open(registry, FRONT)
    registry.forget(front.connection)
    registry.forget(front.connection)
    assert registry.close_revoked(ids=[str(named("front"))]) == 0
    assert len(registry) == 0


@pytest.mark.parametrize("peer", [None, FRONT])
def test_a_principal_is_what_was_verified(peer: SvidInfo | None) -> None:
    principal = peer_principal(peer)
    if peer is None:
        assert principal is ANONYMOUS
    else:
        assert (principal.kind, principal.id) == (Kind.WORKLOAD, str(named("front")))
        assert principal.proof.detail["serial"] == peer.serial


def test_a_process_of_this_machine_is_known_by_its_uid() -> None:
    principal = local_principal(PeerCredentials(7, 1000, 100))
    assert (principal.kind, principal.id) == (Kind.LOCAL, "uid:1000")
