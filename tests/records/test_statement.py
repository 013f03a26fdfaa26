"""What a producer said stays its word: neither the log's operator nor a database writer can make it up."""

from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.memory import MemoryStore
from hauberk.core.event import SIGNED, Entry, Event, Leaf
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records.batch import decode_batch
from hauberk.records.ledger import Ledger
from hauberk.records.statement import (
    CERTIFIED,
    STREAM,
    Producer,
    Signer,
    Statement,
    check_statement,
    parse_statement,
    read_signer,
)
from tests.records.made import DOMAIN, NOW, ORIGIN, PATIENCE, certificate_authority, event, events
from tests.records.made import Producer as Service

AUTHORITY = certificate_authority()
SERVICE = Service(AUTHORITY)
ROOTS = {DOMAIN: (AUTHORITY.root_der,)}
KEY = SigningKey.generate()


class Log:
    def __init__(self, producer: Producer | None) -> None:
        self.store = MemoryStore()
        self.signer = SigningKey.generate()
        self.ledger = self.open(producer)

    def open(self, producer: Producer | None) -> Ledger:
        return Ledger(self.store, self.signer, ORIGIN, producer=producer)

    def write(self, *taken: Event) -> None:
        self.ledger.append_batch(taken).result(PATIENCE)

    def hand_over(self, *taken: Event) -> list[int | None]:
        got = decode_batch(SERVICE.sign(taken), ROOTS, now_ns=(NOW + 10) * 10**9)
        return [one.position for one in self.ledger.append_signed(got.pairs, got.signed).result(PATIENCE)]

    def entries(self) -> list[Entry]:
        return list(self.ledger.entries(limit=10_000))

    def runs(self) -> list[tuple[int, int]]:
        return [(one.position, parse_statement(one.statement).count) for one in self.entries() if one.statement]

    def check(self) -> None:
        """Check every statement as the verifier does; each signed entry has to be covered once."""
        entries, covered = self.entries(), list[int]()
        signers: dict[bytes, Signer] = {}
        for entry in entries:
            if entry.type == CERTIFIED:
                signers.update([read_signer(entry.public)])
            if entry.statement:
                said = parse_statement(entry.statement)
                run = entries[entry.position : entry.position + said.count]
                check_statement(said, [one.leaf for one in run], signers, ROOTS, position=entry.position)
                covered += [one.position for one in run]
        assert covered == [one.position for one in entries if Leaf.decode(one.leaf).flags == SIGNED]


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log(Producer.of_key(KEY))
    yield made
    made.ledger.close()


def test_one_statement_covers_a_commit_and_the_log_says_first_who_signs(log: Log) -> None:
    log.write(*events(5))
    log.write(*events(3))
    assert log.runs() == [(1, 5), (6, 3)]
    assert [entry.type for entry in log.entries() if entry.stream == STREAM] == [CERTIFIED]
    log.check()


def test_events_that_are_signed_alone_have_a_statement_each(log: Log) -> None:
    log.write(event(), event(alone=True), event(), event(), event(alone=True))
    assert log.runs() == [(1, 1), (2, 1), (3, 2), (5, 1)]
    log.check()


def test_a_producer_is_introduced_once_also_after_a_restart(log: Log) -> None:
    log.write(event())
    log.ledger.close()
    log.ledger = log.open(Producer.of_key(KEY))
    log.write(event())
    assert [entry.position for entry in log.entries() if entry.type == CERTIFIED] == [0]
    log.check()


def test_what_a_service_signed_is_kept_as_it_signed_it() -> None:
    log = Log(None)
    assert log.hand_over(*events(3)) == [1, 2, 3]
    log.write(event())  # the authority's own, unsigned
    log.hand_over(event())
    assert log.runs() == [(1, 3), (5, 1)]
    log.check()
    log.ledger.close()


def test_a_batch_of_which_some_arrived_before_is_still_what_was_signed() -> None:
    log = Log(None)
    made = events(6)
    log.hand_over(*made[2:4])
    assert log.hand_over(*made) == [3, 4, 1, 2, 5, 6]
    assert log.hand_over(*made) == [3, 4, 1, 2, 5, 6]
    log.check()
    log.ledger.close()


def forged(entry: Entry, said: Statement, key: SigningKey) -> Statement:
    """A statement about an entry, made with another key under the producer's name."""
    made = Producer.of_key(key).state(said.time_ns, [entry.leaf])
    again = parse_statement(made)
    return Statement(said.signer, again.time_ns, again.count, again.digests, again.signature)


def test_an_operator_with_the_logs_key_cannot_make_a_producer_say_something(log: Log) -> None:
    log.write(event())
    entry = log.entries()[1]
    said = parse_statement(entry.statement)
    signers = {said.signer: Signer(key=KEY.public.raw)}
    check_statement(said, [entry.leaf], signers, {}, position=1)
    for other in (
        forged(entry, said, log.signer),
        Statement(said.signer, said.time_ns + 1, said.count, said.digests, said.signature),
        Statement(said.signer, said.time_ns, said.count + 1, said.digests, said.signature),
        Statement(bytes(32), said.time_ns, said.count, said.digests, said.signature),
    ):
        with pytest.raises(Tampered) as found:
            check_statement(other, [entry.leaf], signers, {}, position=1)
        assert found.value.context["kind"] == "forged-signature"
    rewritten = entry.leaf[:26] + sha256(b"another word").digest() + entry.leaf[58:]
    with pytest.raises(Tampered):
        check_statement(said, [rewritten], signers, {}, position=1)


def test_without_statements_the_logs_key_alone_rewrites_what_a_service_said() -> None:
    log = Log(None)
    log.write(event(data={"amount": 1}))
    twin = Log(None)
    twin.signer = log.signer
    twin.ledger.close()
    twin.ledger = twin.open(None)
    twin.write(event(data={"amount": 1_000_000}))
    assert (
        twin.ledger.checkpoint().splitlines()[0] == log.ledger.checkpoint().splitlines()[0]
    )  # as genuine as the other
    for one in (log, twin):
        one.ledger.close()


def test_a_chain_of_another_domain_or_time_is_refused() -> None:
    log = Log(None)
    log.hand_over(*events(2))
    entries = log.entries()
    said = parse_statement(entries[1].statement)
    signers = dict([read_signer(entries[0].public)])
    leaves = [one.leaf for one in entries[1:3]]
    assert check_statement(said, leaves, signers, ROOTS, position=1) == SERVICE.svid
    stranger = {DOMAIN: (certificate_authority().root_der,)}
    with pytest.raises(Tampered):
        check_statement(said, leaves, signers, stranger, position=1)
    log.ledger.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"fingerprint":"00"}',
        b'{"fingerprint":"zz","key":"AA=="}',
        b'{"fingerprint":"00","key":"AA=="}',
    ],
)
def test_a_certificate_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(RecordsError) as found:
        read_signer(data)
    assert found.value.code == "HBK-712"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_no_statement(data: bytes) -> None:
    with suppress(RecordsError):
        assert parse_statement(data).encode() == data


def test_a_producer_shows_no_key() -> None:
    assert "sign" not in repr(Producer.of_key(KEY))
