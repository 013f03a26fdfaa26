"""Asking the audit log: what is found, under which keys, with which proof, by whom, and what is recorded of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import key_source
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.call import Workload
from hauberk.core.clock import ManualClock
from hauberk.core.event import Leaf
from hauberk.core.ports import Store
from hauberk.core.principal import Kind, Principal
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.merkle import leaf_hash, verify_inclusion
from hauberk.crypto.note import decode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Denied, Malformed, Tampered
from hauberk.policy.engine import Engine
from hauberk.policy.parse import parse_documents
from hauberk.policy.set import PolicySet
from hauberk.records._encode import decode_event
from hauberk.records._tiles import StoredTree
from hauberk.records.access import Reads
from hauberk.records.audit import AuditLog
from hauberk.records.audit_query import MAX_ASKED, PAGE, Answer, AuditReader, Prover, Wanted, ask, asked
from hauberk.records.epochs import PseudonymEpochs
from hauberk.records.ledger import Ledger
from hauberk.records.mark import read_mark
from hauberk.records.permission import Permission
from hauberk.records.streams import DENIED, READS
from tests.records.made import NOW, ORIGIN, PATIENCE, event

ALICE, BOB = "alice@example.org", "bob@example.org"
AUDITOR = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/production/sa/auditor")
CURIOUS = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/production/sa/curious")
CLERK = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/production/sa/clerk")
POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: audit, namespace: production}
spec:
  rules:
  - from: [{source: {principals: [example.org/ns/production/sa/auditor]}}]
    to: [{operation: {methods: [read], paths: ["/audit/*"]}}]
  - from: [{source: {principals: [example.org/ns/production/sa/clerk]}}]
    to: [{operation: {methods: [read], paths: ["/audit/*"], notPaths: ["/audit/production/payments"]}}]
"""


class Archive:
    """A ledger with audit entries of two services, and everything it takes to ask."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock(NOW)
        self.path = path / "log.db"
        self.keyring = Keyring(key_source("", path / "keys", create=True))
        self.store = AuthenticRows(SqliteStore(self.path), self.keyring)
        self.signer = SigningKey.generate()
        self.ledger = Ledger(self.store, self.signer, ORIGIN)
        self.epochs = PseudonymEpochs(self.store, self.keyring)
        self.orders = AuditLog(self.ledger, self.epochs, "production/orders", clock=self.clock)
        self.payments = AuditLog(self.ledger, self.epochs, "production/payments", clock=self.clock)
        here = Workload("production", "audit")
        engine = Engine(PolicySet.default().with_documents(parse_documents(POLICIES)), here)
        hidden = self.keyring.pseudonyms()
        self.permission = Permission(engine, self.ledger, hidden, target=here, clock=self.clock)
        self.reads = Reads(self.permission)
        self.reader = AuditReader(
            self.store, ORIGIN, self.ledger.verifier, self.epochs, permission=self.permission, reads=self.reads
        )

    def prover(self) -> Prover:
        return Prover(self.store, ORIGIN, self.ledger.verifier)

    def found(self, **wanted: object) -> list[int]:
        return positions(ask(self.prover(), msgspec.convert(wanted, Wanted), self.epochs))

    def stream(self, name: str) -> list[dict[str, object]]:
        return [dict(decode_event(entry.meta, entry.public).data) for entry in self.ledger.stream(name)]

    def close(self) -> None:
        self.ledger.close()
        self.store.close()


def positions(answer: Answer) -> list[int]:
    return [hit.entry.position for hit in answer.hits]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path)
    made.orders.access(ALICE, "/orders/17", "read", session="s1", address="10.0.0.1")  # 0
    made.orders.access(BOB, "/orders/17", "refund", "denied", address="10.0.0.2")  # 1
    made.ledger.offer(event(3))  # 2: none of the audit log's
    made.clock.advance(100)
    made.payments.access(ALICE, "/payments/3", "read", session="s2")  # 3
    made.payments.record("login", user=ALICE, outcome="failed")  # 4
    made.orders.access(AUDITOR, "/orders/18", "read")  # 5
    made.orders.flush(PATIENCE)
    yield made
    made.close()


# what is found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [0, 1, 3, 4, 5]),
        ({"user": ALICE}, [0, 3, 4]),
        ({"user": "nobody@example.org"}, []),
        ({"user": AUDITOR.id}, [5]),
        ({"session": "s2"}, [3]),
        ({"address": "10.0.0.2"}, [1]),
        ({"resource": "/orders/17"}, [0, 1]),
        ({"resource": "/orders/*"}, [0, 1, 5]),
        ({"resource": "/orders"}, []),
        ({"action": "read"}, [0, 3, 5]),
        ({"outcome": "denied"}, [1]),
        ({"kind": "audit.login"}, [4]),
        ({"stream": "/audit/production/payments"}, [3, 4]),
        ({"stream": "/audit/production/*"}, [0, 1, 3, 4, 5]),
        ({"stream": "/*", "kind": "order.paid"}, [2]),
        ({"since_ns": (NOW + 50) * 10**9}, [3, 4, 5]),
        ({"until_ns": (NOW + 50) * 10**9}, [0, 1]),
        ({"user": ALICE, "action": "read", "since_ns": (NOW + 50) * 10**9}, [3]),
        ({"limit": 2}, [4, 5]),
        ({"limit": 2, "after": -1}, [0, 1]),
        ({"limit": 2, "after": 1}, [3, 4]),
    ],
)
def test_entries_are_found_by_what_is_known_of_them(
    archive: Archive, wanted: dict[str, object], found: list[int]
) -> None:
    assert archive.found(**wanted) == found


def test_a_pseudonym_that_somebody_read_somewhere_can_be_asked_for(archive: Archive) -> None:
    assert archive.found(user=archive.epochs.of("user", BOB)) == [1]


def test_a_person_is_found_under_every_key_that_is_live(archive: Archive) -> None:
    archive.epochs.rotate()
    archive.orders.access(ALICE, "/orders/19", "read", level="receipt").result(PATIENCE)
    actors = {decode_event(entry.meta, entry.public).actor for entry in archive.ledger.entries(after=5)}
    assert actors == {archive.epochs.of("user", ALICE)}
    assert archive.found(user=ALICE) == [0, 3, 4, 6]
    archive.epochs.retire(0)
    assert archive.found(user=ALICE) == [6]  # the old ones are nobody's any more


def test_with_the_latest_key_alone_older_entries_would_be_missed(archive: Archive) -> None:
    archive.epochs.rotate()

    class Latest:
        def every(self, kind: str, value: str) -> tuple[str, ...]:
            return archive.epochs.every(kind, value)[:1]

    assert positions(ask(archive.prover(), Wanted(user=ALICE), Latest())) == []


def test_what_is_asked_for_is_cut_and_cleaned_as_what_is_kept(archive: Archive) -> None:
    long, secret = "/" + "x" * 5_000, "/login?password=Tr0ub4dor"
    archive.orders.access(BOB, long, "a" * 100)
    archive.orders.access(BOB, secret, "read")
    archive.orders.flush(PATIENCE)
    assert archive.found(resource=long) == archive.found(action="a" * 100) == [6]
    assert archive.found(resource=secret) == [7]


def test_a_long_log_is_read_page_by_page(archive: Archive) -> None:
    for number in range(PAGE + 10):
        archive.orders.access(BOB, f"/n/{number}", "read")
    archive.orders.access(ALICE, "/last", "read")
    archive.orders.flush(PATIENCE)
    assert archive.found(user=ALICE) == [0, 3, 4, PAGE + 16]
    assert archive.found(user=ALICE, limit=1) == [PAGE + 16]
    assert archive.found(user=ALICE, after=4) == [PAGE + 16]
    everything = list(archive.reader.all(Wanted(user=BOB), AUDITOR))
    assert len(everything) == PAGE + 11


def test_an_entry_nobody_can_read_is_passed_over(archive: Archive, tmp_path: Path) -> None:
    with sqlite3.connect(archive.path) as database:
        database.execute("UPDATE entry SET public = x'00' WHERE position = 0")
    database.close()
    assert archive.found(user=ALICE) == [3, 4]
    assert tmp_path.exists()


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1_001}, {"stream": "/audit/*/x"}])
def test_what_is_no_question_is_refused(archive: Archive, wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        archive.found(**wrong)


def test_an_empty_log_has_no_answer(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "empty.db")
    ledger = Ledger(store, SigningKey.generate(), ORIGIN)

    class Nobody:
        def every(self, kind: str, value: str) -> tuple[str, ...]:
            return (f"{kind}:{value}",)

    assert ask(Prover(store, ORIGIN, ledger.verifier), Wanted(), Nobody()) == Answer((), "")
    ledger.close()
    store.close()


# its proof


def test_each_answer_can_be_checked_by_anybody(archive: Archive) -> None:
    answer = ask(archive.prover(), Wanted(), archive.epochs)
    signed = read_mark(answer.checkpoint, decode_key(archive.ledger.verifier)[1])
    for hit in answer.hits:
        view = hit.view()
        proof = view["proof"]
        assert isinstance(proof, dict)
        leaf = bytes.fromhex(proof["leaf"])
        path = [bytes.fromhex(step) for step in proof["path"]]
        verify_inclusion(leaf_hash(leaf), Leaf.decode(leaf).position, signed.size, path, signed.root)
        assert Leaf.decode(leaf).position == view["position"]


EDITS = {
    "meta": "UPDATE entry SET meta = CAST(replace(meta, 'denied', 'ok') AS BLOB) WHERE position = 1",
    "public": "UPDATE entry SET public = CAST(replace(public, '/orders/17', '/orders/99') AS BLOB) WHERE position = 1",
    "type": "UPDATE entry SET meta = CAST(meta AS TEXT) WHERE position = 1",
    "leaf": "UPDATE entry SET leaf = (SELECT leaf FROM entry WHERE position = 0) WHERE position = 1",
    "moved": "UPDATE entry SET (meta, public, leaf) = (SELECT meta, public, leaf FROM entry WHERE position = 0)"
    " WHERE position = 1",
    "version": "UPDATE entry SET version = 17 WHERE position = 1",
    "tile": "UPDATE tile SET data = zeroblob(length(data))",
    "head": "UPDATE head SET size = 5",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_answer_that_was_edited_in_the_database_is_an_error(archive: Archive, edit: str) -> None:
    key = archive.ledger.verifier
    archive.close()
    with sqlite3.connect(archive.path) as database:
        assert database.execute(EDITS[edit]).rowcount >= 1
    database.close()
    store = open_readonly(archive.path)
    try:
        with pytest.raises(Tampered):
            ask(Prover(store, ORIGIN, key), Wanted(), archive.epochs)
        seen = [decode_event(entry.meta, entry.public) for entry in store.entries(ORIGIN)]
        assert len(seen) == 6  # whoever only reads the rows is told without a word of doubt
    finally:
        store.close()


SWAPPED = "UPDATE {} SET log = ? WHERE log = ?"
ANOTHER = "example.org/other"


def swapped(archive: Archive) -> str:
    """Whoever writes the database puts another log of the same key in the place of this one; return its key text."""
    with closing(Ledger(archive.store, archive.signer, ANOTHER)) as other:
        other.append_batch([event(stream="/audit/production/orders")]).result(PATIENCE)
    key = archive.ledger.verifier
    archive.close()
    with closing(sqlite3.connect(archive.path)) as database, database:
        for table in ("entry", "tile", "head"):
            database.execute(SWAPPED.format(table), ("aside", ORIGIN))
            assert database.execute(SWAPPED.format(table), (ORIGIN, ANOTHER)).rowcount
    return key


def test_another_log_of_the_same_key_proves_nothing_in_the_place_of_this_one(archive: Archive) -> None:
    key = swapped(archive)
    with closing(open_readonly(archive.path)) as store, pytest.raises(Tampered):
        Prover(store, ORIGIN, key)


class Nameless(Prover):
    """Looks at the key of a checkpoint and not at the log it names."""

    def __init__(self, store: Store, log: str, verifier: str) -> None:
        self.store, self.log, self.checkpoint = store, log, store.head(log).checkpoint.decode()
        signed = read_mark(self.checkpoint, decode_key(verifier)[1])
        self.size, self._root, self._tree = signed.size, signed.root, StoredTree(store, log)


def test_without_looking_at_the_name_another_log_of_the_same_key_is_believed(archive: Archive) -> None:
    key = swapped(archive)
    with closing(open_readonly(archive.path)) as store:
        assert len(ask(Nameless(store, ORIGIN, key), Wanted(), archive.epochs).hits) == 1


def test_the_key_of_another_log_proves_nothing(archive: Archive) -> None:
    other = Ledger(archive.store, SigningKey.generate(), "example.org/other")
    with pytest.raises(Tampered):
        Prover(archive.store, ORIGIN, other.verifier)
    other.close()


# who may ask, and what is recorded


def test_nobody_reads_the_audit_log_without_a_policy_that_says_so(archive: Archive) -> None:
    with pytest.raises(Denied):
        archive.reader.ask(Wanted(user=ALICE), CURIOUS)
    with pytest.raises(Denied):
        archive.reader.ask(Wanted(stream="/*"), AUDITOR)
    denials = archive.stream(DENIED)
    assert [(one["verb"], one["path"]) for one in denials] == [("read", "/audit/*"), ("read", "/*")]
    assert archive.stream(READS) == []


def test_streams_one_may_not_read_are_left_out(archive: Archive) -> None:
    assert positions(archive.reader.ask(Wanted(), AUDITOR)) == [0, 1, 3, 4, 5]
    assert positions(archive.reader.ask(Wanted(), CLERK)) == [0, 1, 5]
    assert positions(archive.reader.ask(Wanted(limit=2, after=1), CLERK)) == [5]
    with pytest.raises(Denied):
        archive.reader.ask(Wanted(stream="/audit/production/payments"), CLERK)


def test_reading_is_recorded_before_it_is_shown_once_a_minute_and_people_under_their_pseudonyms(
    archive: Archive,
) -> None:
    for _ in range(50):
        archive.reader.ask(Wanted(user=ALICE, session="s1", action="read"), AUDITOR)
    size = archive.ledger.head().size
    [read] = archive.stream(READS)
    hidden, session = archive.epochs.of("user", ALICE), archive.epochs.of("session", "s1")
    assert read["stream"] == f"/audit/* user={hidden} session={session} action=read"
    archive.clock.advance(60)
    archive.reader.ask(Wanted(), AUDITOR)
    archive.reads.close()
    archive.orders.flush(PATIENCE)
    counted = [one["entries"] for one in archive.stream(READS) if "entries" in one]
    assert counted == [50, 5]
    assert archive.ledger.head().size == size + 3


def test_asking_does_not_feed_on_itself(archive: Archive) -> None:
    before = positions(archive.reader.ask(Wanted(), AUDITOR))
    for _ in range(5):
        archive.clock.advance(60)
        assert positions(archive.reader.ask(Wanted(), AUDITOR)) == before


def test_a_question_is_bounded_and_clean_where_it_is_recorded(archive: Archive) -> None:
    text = asked(Wanted(resource="/x?password=Tr0ub4dor\n" + "y" * 900, user=ALICE), archive.epochs)
    assert len(text) <= MAX_ASKED
    assert "Tr0ub4dor" not in text
    assert ALICE not in text
