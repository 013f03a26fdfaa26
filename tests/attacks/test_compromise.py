"""The threat model, row by row: what somebody gains by a stolen key, token, clock or disk, and what still holds."""

import os
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.memory import MemoryStore
from hauberk.agent.feed import FeedState
from hauberk.authority.publisher import Publisher
from hauberk.authority.registry import Registry
from hauberk.core.clock import ManualClock
from hauberk.core.feed import REVOCATIONS, RevocationBody
from hauberk.core.ports import Delete, Put, Recorder, Write
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.signing import SigningKey
from hauberk.crypto.x509 import WorkloadKey, verify_chain
from hauberk.errors import ConfigError, HauberkError, IdentityError, RecordsError, Tampered
from hauberk.identity.attest import peer_credentials
from hauberk.identity.revocation import Revocations
from hauberk.records.forward import Forwarder
from hauberk.records.ledger import Ledger
from hauberk.records.spool import Spool
from tests.attacks.ablation import attacks
from tests.attacks.arena import (
    BUNDLE,
    DOMAIN,
    EVIL,
    OPENSSL,
    ORDERS,
    PAYMENTS,
    arena,
    identity,
    problem,
    request,
    serial,
)
from tests.attacks.catalogue import PAY
from tests.attacks.control_plane import (
    ENTRIES,
    batch,
    edited,
    entry,
    event,
    history,
    opened,
    verify,
    workload,
)


def test_a_stolen_service_key_is_good_for_what_the_service_may_do_and_until_it_is_revoked() -> None:
    with arena() as ground:
        assert ground.send(identity(ORDERS), PAY)["status"] == 200
        assert ground.send(identity(ORDERS), request("DELETE", "/api/payments"))["status"] == 403
        ground.runtime.revoke(Revocations.of(serials=[serial(identity(ORDERS))]))
        assert ground.send(identity(ORDERS), PAY)["status"] == 0


def test_a_stolen_service_key_writes_lies_into_its_own_stream_and_into_no_other() -> None:
    with opened() as found:
        thief = workload(found, ORDERS)
        assert len(found.take_batch(thief.current().svid, batch(thief, event(ORDERS)))) == 1
        with pytest.raises(RecordsError):
            found.take_batch(thief.current().svid, batch(thief, event(PAYMENTS)))


def test_a_stolen_ca_key_makes_anybody_and_a_new_root_ends_that() -> None:
    with opened() as found:
        key = WorkloadKey.generate()
        forged = found.ca.issue(key.request(PAYMENTS), PAYMENTS)
        assert verify_chain(forged.chain, found.bundles.roots, at=time.time()).spiffe_id == PAYMENTS
        for step in ("prepare", "activate", "finish"):
            found.rotate_root(step, "uid:0", force=True)
        with pytest.raises(IdentityError):
            verify_chain(forged.chain, found.bundles.roots, at=time.time())


def test_a_stolen_feed_key_takes_a_revocation_back_but_never_goes_below_the_number_in_force() -> None:
    clock, key = ManualClock(), SigningKey.generate()
    publisher = Publisher(MemoryStore(), key, DOMAIN, clock=clock)
    publisher.put(REVOCATIONS, RevocationBody())
    publisher.put(REVOCATIONS, RevocationBody((str(EVIL),)))
    state = FeedState(key.public, DOMAIN, clock=clock)
    state.apply(publisher.message(0))
    forger = Publisher(MemoryStore(), key, DOMAIN, clock=clock)
    forger.put(REVOCATIONS, RevocationBody())
    with pytest.raises(HauberkError):
        state.apply(forger.message(0))
    for _ in range(2):
        forger.put(REVOCATIONS, RevocationBody())
    (taken,) = state.apply(forger.message(0))
    assert b"evil-service" not in taken.body


def test_a_stolen_log_key_rewrites_the_ledger_unless_somebody_kept_a_checkpoint(tmp_path: Path) -> None:
    key = SigningKey.generate()
    known = history(tmp_path / "true.db", key, ENTRIES)
    history(tmp_path / "false.db", key, ENTRIES, but=edited)
    public = Ledger(MemoryStore(), key, f"{DOMAIN}/ledger").verifier
    verify(tmp_path / "false.db", public, "")
    with pytest.raises(RecordsError):
        verify(tmp_path / "false.db", public, known)


def test_a_clock_that_is_two_hours_slow_believes_an_expired_certificate() -> None:
    attack = attacks()["expired certificate"]
    assert attack.attempt(frozenset()) is not None
    assert attack.attempt(frozenset({OPENSSL, BUNDLE})) is None


def test_a_stolen_join_token_works_for_the_thief_and_its_owner_finds_out() -> None:
    with opened() as found:
        token = found.token("order-service", "uid:0")
        found.join(token.secret, WorkloadKey.generate().request(None))
        with pytest.raises(IdentityError) as told:
            found.join(token.secret, WorkloadKey.generate().request(None))
        assert told.value.code == "HBK-204"
        kinds = [entry.type for entry in found.ledger.entries()]
        assert kinds[-2:] == ["identity.issued", "identity.denied"]


def test_a_stolen_database_redeems_no_token_and_opens_no_key() -> None:
    with opened() as found:
        token = found.token("order-service", "uid:0")
        with pytest.raises(IdentityError):
            found.join(token.digest, WorkloadKey.generate().request(None))
        data = b"".join(path.read_bytes() for path in found.state.private.glob("hauberk.db*"))
        assert token.secret not in data
        assert found.ca.key_der() not in data


def test_whoever_writes_the_database_registers_nobody_and_is_noticed() -> None:
    with opened() as found:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            me = peer_credentials(ours)
        csr = WorkloadKey.generate().request(None)
        with pytest.raises(IdentityError):
            found.attest(me, csr, "order-service")
        mine = entry(f"unix:uid:{os.getuid()}")
        with sqlite3.connect(found.state.database) as database:
            database.execute("UPDATE row SET value = ? WHERE space = 'entries'", (mine.encode(),))
        database.close()
        with pytest.raises(Tampered):
            found.attest(me, csr, "order-service")
        with pytest.raises(Tampered):
            found.status()
        rows = AuthenticRows(MemoryStore(), found.state.keyring)  # the twin: with the key the very row is believed
        rows.commit(Write(rows=(Put("entries", b"order-service", mine.encode()),)))
        assert [it.name for it in Registry(rows).entries()] == ["order-service"]


def test_whoever_writes_the_database_deletes_what_was_revoked_unless_somebody_looks() -> None:
    with opened() as found:
        found.revoke("uid:0", ids=("spiffe://example.org/ns/production/sa/order-service",))
        found.store.commit(Write(rows=(Delete("feed", b"revocations"),)))
        assert Publisher(found.store, found.feed_key, DOMAIN).get("revocations") is None
        assert [it.type for it in found.ledger.entries(kind="admin.revoked")] == ["admin.revoked"]


def away(_wire: bytes) -> tuple[int, ...]:
    raise ConfigError("HBK-902", "the authority is away")


def cut_off(directory: Path, *, spool_bytes: int, insecure: bool = False) -> Forwarder:
    """Return the recorder of a service that cannot reach its authority."""
    spool = Spool(directory / "spool", max_bytes=spool_bytes)
    return Forwarder(
        away, lambda events: b"".join(it.id for it in events).ljust(64), spool, insecure_unrecorded=insecure
    )


def denied(recorder: Recorder, who: SpiffeId = EVIL) -> tuple[int, str]:
    with arena() as ground:
        ground.runtime.recorder = recorder
        answer = ground.send(identity(who), PAY)
        assert not ground.till.done
        return int(answer["status"]), problem(answer)


def test_without_the_authority_a_service_decides_by_what_it_has_and_records_on_its_own_disk(tmp_path: Path) -> None:
    forwarder = cut_off(tmp_path, spool_bytes=65_536)
    assert denied(forwarder) == (403, "HBK-300")
    assert forwarder.depth() == 1
    again = Spool(tmp_path / "spool")
    assert again.depth == 1
    again.close()


def test_what_can_be_recorded_nowhere_is_answered_with_an_error_and_never_done(tmp_path: Path) -> None:
    assert denied(cut_off(tmp_path, spool_bytes=10)) == (503, "HBK-704")


def test_told_to_go_on_unrecorded_it_answers_and_counts_what_it_lost(tmp_path: Path) -> None:
    forwarder = cut_off(tmp_path, spool_bytes=10, insecure=True)
    assert denied(forwarder) == (403, "HBK-300")
    assert forwarder.unrecorded == 1
