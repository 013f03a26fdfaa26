"""Who may say what, and when: what an operator makes up in the name of a service, or of the application."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.clock import ManualClock
from hauberk.core.event import Event
from hauberk.errors import Tampered
from hauberk.records import batch, statement
from hauberk.records.batch import decode_batch
from hauberk.records.ledger import Ledger
from hauberk.records.streams import RETENTION
from hauberk.records.verify import State, Trust, statements, verify_since
from tests.records.made import NOW, ORIGIN, PATIENCE, STREAM, Producer, event
from tests.records.test_verify import KEY, SIGNER, single
from tests.records.test_verify_declared import NAMED, OTHER, PRODUCER, ROOTS, SERVICE, found, verify


@pytest.mark.parametrize("later", [2 * 365 * 86_400, 31 * 86_400, -400])
def test_a_key_that_expired_says_nothing_new(tmp_path: Path, later: int) -> None:
    """Whoever has it signs with the time at which it was valid; but the log is of today."""

    def written(name: str, seconds: int) -> Path:
        made = tmp_path / name
        store = SqliteStore(made)
        ledger = Ledger(store, SIGNER, ORIGIN, clock=ManualClock(NOW + seconds))
        received = decode_batch(SERVICE.sign([event(1)]), ROOTS, now_ns=NOW * 10**9 + 2 * 10**9)
        ledger.append_signed(received.pairs, received.signed).result(PATIENCE)
        ledger.close()
        store.close()
        return single(made)

    assert found(written("late", later), NAMED) == ("forged-signature", 1)
    assert verify(written("spool", 29 * 86_400), NAMED).signed == 1  # the twin: as old as a spool may be


def test_the_verifier_asks_of_a_statement_what_was_asked_on_its_arrival() -> None:
    assert (statements.OLDEST_NS, statements.AHEAD_NS) == (batch.MAX_AGE_NS, batch.MAX_AHEAD_NS)
    assert statements.WAITING_NS <= batch.MAX_AGE_NS // 100


# attribution

AUDITED = "/audit/production/payment-service"


def told_log(directory: Path, *runs: tuple[statement.Producer | None, Event], name: str = "told.db") -> Path:
    """A log into which its operator puts what anybody signs, or nobody."""
    made = directory / name
    store = SqliteStore(made)
    for who, one in runs:
        ledger = Ledger(store, SIGNER, ORIGIN, producer=who, clock=ManualClock(NOW + 1))
        ledger.append_batch([one]).result(PATIENCE)
        ledger.close()
    store.close()
    return single(made)


def service(one: Producer) -> statement.Producer:
    return statement.Producer.of_chain(one.chain, one.key.sign)


STRICT = Trust(ROOTS, frozenset(), require_signed=True)


@pytest.mark.parametrize("stream", [AUDITED, f"{AUDITED}/more", STREAM, f"{STREAM}/more"])
def test_a_service_speaks_for_its_audit_log_and_nobody_else_does(tmp_path: Path, stream: str) -> None:
    one = event(1, stream=stream, type="audit.access")
    assert verify(told_log(tmp_path, (service(SERVICE), one)), STRICT).speakers == ()
    forged = told_log(tmp_path, (service(SERVICE), event()), (service(OTHER), one), name="forged.db")
    verify(forged)  # the twin: without roots
    assert found(forged, STRICT) == ("forged-signature", 3)


@pytest.mark.parametrize("stream", [AUDITED + "-2", "/audit/production", "/services/production/payment-service-2"])
def test_a_name_that_only_begins_like_the_services_is_another(tmp_path: Path, stream: str) -> None:
    assert found(told_log(tmp_path, (service(SERVICE), event(stream=stream))), STRICT) == ("forged-signature", 1)


@pytest.mark.parametrize("stream", [AUDITED, STREAM, "/streams/order-1", "/snapshots/order-1"])
def test_what_has_to_be_signed_is_not_believed_without(tmp_path: Path, stream: str) -> None:
    forged = told_log(tmp_path, (service(SERVICE), event()), (None, event(stream=stream)))
    verify(forged, Trust(ROOTS))  # the twin: nobody asked
    assert found(forged, STRICT) == ("unsigned", 2)


@pytest.mark.parametrize("stream", ["/records/erasures", "/records/holds", RETENTION])
@pytest.mark.parametrize("own", ["key", "stream", "named"])
def test_the_record_itself_is_signed_where_the_log_has_a_producer(tmp_path: Path, stream: str, own: str) -> None:
    """An authority's has none: services sign their batches, and itself it signs nothing but the checkpoint."""
    authority = [(service(SERVICE), event()), (None, event(stream=stream))]
    bare = told_log(tmp_path, *authority)
    assert verify(bare, STRICT).unsigned == 2  # the twin
    if own == "named":
        assert found(bare, replace(STRICT, services=frozenset({"spiffe://example.org/ns/a/sa/b"}))) == ("unsigned", 2)
        return
    last = (PRODUCER, event()) if own == "key" else (service(SERVICE), event(stream="/streams/a"))
    embedded = told_log(tmp_path, *authority, last, name="embedded.db")
    trust = replace(STRICT, keys=frozenset({PRODUCER.fingerprint})) if own == "key" else STRICT
    assert found(embedded, trust) == ("unsigned", 2)


def test_that_is_known_the_next_time_too(tmp_path: Path) -> None:
    made = told_log(tmp_path, (service(SERVICE), event(stream="/streams/a")))
    store = open_readonly(made)
    state = State.parse(verify_since(store, KEY, None, trust=STRICT)[1].encode())
    store.close()
    assert state.own
    told_log(tmp_path, (None, event(stream=RETENTION)))
    store = open_readonly(made)
    with pytest.raises(Tampered) as caught:
        verify_since(store, KEY, state, trust=STRICT)
    assert caught.value.context["kind"] == "unsigned"
    verify_since(store, KEY, replace(state, own=False), trust=STRICT)  # the twin
    store.close()


@pytest.mark.parametrize("stream", ["/streams/order-1", "/snapshots/order-1", "/records/erasures", "/authority/a"])
def test_who_speaks_for_the_application_is_named_or_told(tmp_path: Path, stream: str) -> None:
    made = told_log(tmp_path, (service(OTHER), event(stream=stream)))
    other, mine = str(OTHER.svid.spiffe_id), str(SERVICE.svid.spiffe_id)
    assert verify(made, STRICT).speakers == (other,)  # the twin: nobody was named, and the report says who
    assert verify(made, replace(STRICT, services=frozenset({other}))).speakers == (other,)
    for named in (replace(STRICT, services=frozenset({mine})), replace(STRICT, keys=NAMED.keys)):
        assert found(made, named) == ("forged-signature", 1)
