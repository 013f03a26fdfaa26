"""Erasure: the key is gone everywhere at once, a certificate stays, and what was proven before still is."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.adapters.local_bus import LocalBus
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_bus import PostgresBus
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Entry
from hauberk.core.ports import Row, Write
from hauberk.crypto.datakey import DataKey
from hauberk.crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from hauberk.crypto.note import decode_key, verify_checkpoint
from hauberk.errors import Conflict, HauberkError, HeldBack, Malformed, RecordsError, UnknownSubject
from hauberk.records._tiles import StoredTree
from hauberk.records.erasure import Certificate
from hauberk.records.evidence import ERASED, SCRUBBED, Evidence
from hauberk.records.hidden import Erased
from hauberk.records.keys import ERASED as DESTROYED
from hauberk.records.keys import HOLD, KEY, SUBJECT, Erasing, SubjectKeys
from hauberk.records.permission import Context
from hauberk.records.sealed import unpack
from hauberk.records.streams import ERASURES, HOLDS
from hauberk.records.typed import Event
from hauberk.records.verify import verify_store
from tests.records.made import ORIGIN, PATIENCE
from tests.records.shop import OWNER, OrderPlaced, OrderState, Shop, Sold, placed
from tests.records.test_subscription import second
from tests.support.postgres import database

PLAINTEXT = "ann-7f3a@example.org"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def erase(shop: Shop, subject: str = "ann", reason: str = "Art. 17 GDPR") -> Certificate:
    return shop.store.erase(subject, actor=OWNER, reason=reason).result(PATIENCE)


def emails(events: list[Event]) -> list[object]:
    return [event.email for event in events if isinstance(event, OrderPlaced)]


def test_after_erasing_a_person_nothing_private_of_it_opens_and_all_others_do(shop: Shop) -> None:
    shop.append("order-1", placed(1, customer="ann"), placed(2, customer="bob"))
    shop.append("order-2", Sold(buyer="ann", seller="bob", to="Ring 1", iban="AT00"))
    certificate = shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    for _ in range(2):
        gone, bob, sold = shop.read()
        assert isinstance(gone, OrderPlaced)
        assert isinstance(sold, Sold)
        assert gone.email == gone.customer == Erased(certificate.keys[0][0], certificate.position)
        assert gone.total == 1
        assert bob == placed(2, customer="bob")
        assert isinstance(sold.to, Erased)
        assert (sold.seller, sold.iban) == ("bob", "AT00")
        shop.again()


def test_the_certificate_says_what_was_destroyed_why_and_by_whom_and_never_whose_it_was(shop: Shop) -> None:
    shop.append("order-1", placed(1, customer="ann"))
    keys = shop.store.read("order-1", actor=OWNER)
    owner = next(iter(keys)).keys["email"]
    certificate = shop.store.erase("ann", actor=OWNER, reason="Art. 17 GDPR, ticket 4711").result(PATIENCE)
    shop.again()
    [erased, scrubbed] = shop.entries(ERASURES)
    assert (erased.type, erased.position, erased.id) == (ERASED, certificate.position, certificate.id)
    assert scrubbed.type == SCRUBBED
    assert certificate.keys[0][0] == owner
    assert certificate.keys[0][1].encode() in erased.public
    assert b"ticket 4711" in erased.public
    assert b"backups" in erased.public
    assert b'"covers":["events","snapshots","archived segments"]' in erased.public
    assert OWNER.id.encode() in erased.meta
    assert certificate.scrubbed
    assert not any(b"ann" in part for one in (erased, scrubbed) for part in (one.meta, one.public, one.sealed))
    proof = certificate.proof()
    assert proof.position == certificate.position


def test_everything_that_was_proven_before_is_proven_after(shop: Shop) -> None:
    done = shop.append("order-1", placed(1, customer="ann"), placed(2, customer="bob"))
    before = [(done.proof(at), shop.entry(at)) for at in range(2)]
    erase(shop)
    key = decode_key(shop.ledger.verifier)[1]
    after = verify_checkpoint(shop.ledger.checkpoint(), ORIGIN, key)
    for proof, entry in before:
        signed = verify_checkpoint(proof.checkpoint, ORIGIN, key)
        verify_inclusion(leaf_hash(entry.leaf), proof.position, signed.size, proof.path, signed.root)
        tree = StoredTree(shop.rows, ORIGIN)
        consistency = tree.consistency(signed.size, after.size)
        verify_consistency(signed.size, after.size, signed.root, after.root, consistency)
        assert shop.entry(proof.position) == entry
    verify_store(shop.inner, shop.ledger.verifier, known=before[0][0].checkpoint)


def test_who_comes_back_is_somebody_new(shop: Shop) -> None:
    shop.append("order-1", placed(1, customer="ann"))
    erase(shop)
    shop.append("order-1", placed(2, customer="ann"))
    gone, back = emails(shop.read())
    assert isinstance(gone, Erased)
    assert back == "ann@example.org"
    erase(shop)
    assert len(shop.entries(ERASURES)) >= 2


@pytest.mark.parametrize("subject", ["nobody", ""])
def test_of_whom_nothing_is_kept_cannot_be_erased(shop: Shop, subject: str) -> None:
    with pytest.raises(UnknownSubject):
        erase(shop, subject)
    assert shop.store.size == 0


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 2_000])
def test_there_is_a_reason_in_one_line(shop: Shop, reason: str) -> None:
    shop.append("order-1", placed(1))
    with pytest.raises(Malformed):
        erase(shop, reason=reason)
    with pytest.raises(Malformed):
        shop.store.hold("ann", actor=OWNER, reason=reason).result(PATIENCE)
    assert emails(shop.read()) == ["ann@example.org"]


def test_an_id_can_be_tried_again_after_its_subject_was_erased(shop: Shop) -> None:
    ids = [b"i" * 16]
    first = shop.append("order-1", placed(1), ids=ids)
    erase(shop)
    assert shop.append("order-1", placed(1), ids=ids).positions == first.positions


# legal holds


def test_a_legal_hold_refuses_the_erasure_with_its_reason_until_it_is_lifted(shop: Shop) -> None:
    shop.append("order-1", placed(1))
    shop.store.hold("ann", actor=OWNER, reason="case 12 Cg 3/26").result(PATIENCE)
    shop.again()
    with pytest.raises(HeldBack) as caught:
        erase(shop)
    assert caught.value.context["reason"] == "case 12 Cg 3/26"
    assert emails(shop.read()) == ["ann@example.org"]
    assert b"HBK-719" in shop.entries("/records/denied")[-1].meta
    shop.store.lift("ann", actor=OWNER, reason="case closed").result(PATIENCE)
    erase(shop)
    assert isinstance(emails(shop.read())[0], Erased)
    holds = shop.entries(HOLDS)
    assert [entry.type for entry in holds] == ["records.held", "records.lifted"]
    assert not any(b"ann" in entry.public + entry.meta for entry in holds)


def test_a_hold_that_comes_while_somebody_is_being_erased_wins_or_loses_whole(tmp_path: Path) -> None:
    for attempt in range(20):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        shop = Shop(directory)
        shop.append("order-1", placed(1))
        with ThreadPoolExecutor(2) as pool:
            erasing = pool.submit(erase, shop)
            pool.submit(lambda one: one.store.hold("ann", actor=OWNER, reason="case").result(PATIENCE), shop).result()
        refused = isinstance(erasing.exception(), HeldBack)
        order = [entry.type for entry in shop.ledger.entries() if entry.type in {ERASED, "records.held"}]
        assert order == (["records.held"] if refused else [ERASED, "records.held"])
        assert isinstance(emails(shop.read())[0], Erased) is not refused
        shop.close()


def test_without_the_hold_in_the_same_write_an_erasure_slips_past_it(shop: Shop) -> None:
    shop.append("order-1", placed(1))
    assert shop.keys.held("ann") == ""  # looked at before ...
    erasing = shop.keys.erasing("ann")
    shop.store.hold("ann", actor=OWNER, reason="case").result(PATIENCE)
    event = shop.store.permission.event(ERASED, ERASURES, Context.of(OWNER), data={})
    shop.ledger.append_batch((event,), rows=erasing.rows(event.id)).result(PATIENCE)  # ... and written after
    assert isinstance(emails(shop.read())[0], Erased)


# whoever may write the database, and has no key


class Intruder:
    """Deletes rows and puts old ones back, as they were."""

    def __init__(self, shop: Shop) -> None:
        assert isinstance(shop.inner, MemoryStore)
        self.rows = shop.inner._rows
        self.kept: dict[tuple[str, bytes], Row] = {}

    def keep(self) -> None:
        self.kept = {at: row for at, row in self.rows.items() if at[0] in {SUBJECT, KEY}}

    def put_back(self) -> None:
        self.rows.update(self.kept)
        self.drop(DESTROYED)

    def drop(self, space: str) -> None:
        for at in [at for at in self.rows if at[0] == space]:
            del self.rows[at]


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the ledger's word from who erases and reads."""
    monkeypatch.setattr(Evidence, "certificate", lambda *_: None)
    monkeypatch.setattr(Evidence, "held", lambda *_: "")


def held_and_deleted(shop: Shop) -> None:
    shop.append("order-1", placed(1))
    shop.store.hold("ann", actor=OWNER, reason="court").result(PATIENCE)
    Intruder(shop).drop(HOLD)


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
def test_who_deletes_the_row_of_a_hold_lifts_no_hold(shop: Shop, *, again: bool) -> None:
    held_and_deleted(shop)
    if again:
        shop.again()
    with pytest.raises(HeldBack) as caught:
        erase(shop)
    assert caught.value.context["reason"] == "court"
    assert emails(shop.read()) == ["ann@example.org"]
    shop.store.lift("ann", actor=OWNER, reason="over").result(PATIENCE)
    erase(shop)


def test_without_the_record_the_row_is_all_there_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    blind(monkeypatch)
    held_and_deleted(shop)
    erase(shop)
    assert isinstance(emails(shop.read())[0], Erased)


def test_the_row_of_a_hold_holds_by_itself(shop: Shop) -> None:
    shop.append("order-1", placed(1))
    shop.rows.commit(Write(rows=(shop.keys.hold("ann", "an older version's"),)))
    with pytest.raises(HeldBack):
        erase(shop)


def test_a_hold_of_one_person_holds_nobody_else(shop: Shop) -> None:
    shop.append("order-1", placed(1, customer="ann"), placed(2, customer="bob"))
    shop.store.hold("ann", actor=OWNER, reason="court").result(PATIENCE)
    erase(shop, "bob")
    mark = shop.keys.hold_mark("ann")
    assert mark != shop.keys.subject_row("ann")
    assert mark.hex().encode() in shop.entries(HOLDS)[0].public


def test_a_hold_recorded_while_somebody_is_being_erased_stops_it_even_without_its_row(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.append("order-1", placed(1))
    erasing = type(shop.keys).erasing

    def late(keys: SubjectKeys, subject: str) -> Erasing:
        monkeypatch.undo()
        shop.store.hold("ann", actor=OWNER, reason="court").result(PATIENCE)
        Intruder(shop).drop(HOLD)
        return erasing(keys, subject)

    monkeypatch.setattr(type(shop.keys), "erasing", late)  # after it was looked whether a hold is there
    with pytest.raises(HeldBack):
        erase(shop)


def put_back_after_an_erasure(shop: Shop) -> Intruder:
    shop.append("order-1", placed(1))
    intruder = Intruder(shop)
    intruder.keep()
    erase(shop)
    intruder.put_back()
    return intruder


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
def test_old_rows_that_are_put_back_bring_nobodys_data_back(shop: Shop, *, again: bool) -> None:
    put_back_after_an_erasure(shop)
    if again:
        shop.again()
    for _ in range(2):
        [found] = emails(shop.read())
        assert isinstance(found, Erased)
        assert found.certificate == shop.entries(ERASURES)[0].position
    shop.append("order-1", placed(2))  # sealed under a key of its own
    assert [isinstance(one, Erased) for one in emails(shop.read())] == [True, False]
    erase(shop)
    assert [isinstance(one, Erased) for one in emails(shop.read())] == [True, True]
    assert not list(shop.inner.scan(KEY))


def test_without_the_record_they_bring_it_all_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    blind(monkeypatch)
    put_back_after_an_erasure(shop)
    assert emails(shop.read()) == ["ann@example.org"]


def test_they_bring_nothing_back_in_another_process_either(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    other = second(shop, tmp_path, shared=True)
    put_back_after_an_erasure(shop)
    assert isinstance(emails(other.read())[0], Erased)
    shop.close()
    other.close()


# at the same time


def test_events_of_a_person_that_are_appended_while_it_is_erased_are_whole(shop: Shop) -> None:
    shop.append("order-1", placed(0))

    def write(number: int) -> None:
        shop.append("order-1", placed(number), placed(number))

    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(write, number) for number in range(60)]
        erasures = [pool.submit(erase, shop) for _ in range(5)]
        errors = [one.exception(PATIENCE) for one in writes] + [one.exception(PATIENCE) for one in erasures]
    assert all(error is None or isinstance(error, UnknownSubject | Conflict) for error in errors)
    assert None in errors[:60]  # or nothing was raced
    assert None in errors[60:]
    for event in shop.read():
        assert isinstance(event, OrderPlaced)
        assert isinstance(event.email, Erased) or event.email == "ann@example.org"
        assert isinstance(event.email, Erased) is isinstance(event.customer, Erased)
    verify_store(shop.inner, shop.ledger.verifier)


def test_another_process_forgets_as_well(tmp_path: Path) -> None:
    bus = LocalBus()
    shop = Shop(tmp_path, bus=bus)
    other = second(shop, tmp_path, bus=bus, shared=True)
    shop.append("order-1", placed(1))
    assert emails(other.read()) == ["ann@example.org"]
    assert len(other.keys._open) == 1
    told: list[bytes] = []
    bus.subscribe("records.erased", lambda _subject, ids: told.append(ids))
    erase(shop)
    bus.close()  # whoever was subscribed has been told when it returns
    assert len(other.keys._open) == 0
    assert isinstance(emails(other.read())[0], Erased)
    shop.close()
    other.close()


def test_replicas_on_one_database_erase_for_each_other(tmp_path: Path) -> None:
    with database() as dsn, ExitStack() as taken:
        inner, bus = PostgresStore(dsn), PostgresBus(dsn)
        shop = Shop(tmp_path, inner, bus=bus, shared=True)
        other = second(shop, tmp_path, bus=bus, shared=True)
        for closing in (inner.close, bus.close, shop.close, other.close):
            taken.callback(closing)
        shop.append("order-1", placed(1, customer="ann"), expected=0)
        other.append("order-1", placed(2, customer="ann"), placed(3, customer="bob"), expected=1)
        with pytest.raises(Conflict):
            shop.append("order-1", placed(4), expected=1)
        subscription = iter(shop.store.subscribe("order-1", actor=OWNER, name="mail"))
        assert [next(subscription).event for _ in range(3)] == shop.read("order-1") == other.read("order-1")
        with ThreadPoolExecutor(4) as pool:
            writes = [pool.submit(one.append, "order-2", placed(5, customer="ann")) for one in (shop, other) * 10]
            other.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
            for write in writes:
                write.result(PATIENCE)
        for one in (shop, other):
            first, second_, bob = emails(one.read("order-1"))
            assert isinstance(first, Erased)
            assert isinstance(second_, Erased)
            assert bob == "bob@example.org"
        verify_store(inner, shop.ledger.verifier)


class Silent(LocalBus):
    """A bus whose connection is down."""

    def publish(self, subject: str, data: bytes) -> None:
        raise RecordsError("HBK-703", f"{subject} was not sent, {len(data)} bytes")


def test_a_bus_that_is_down_fails_nothing_that_is_recorded(tmp_path: Path) -> None:
    bus = Silent()
    shop = Shop(tmp_path, bus=bus)
    assert shop.append("order-1", placed(1)).positions == (0,)
    assert erase(shop).position == 1
    shop.close()
    bus.close()


def test_another_process_forgets_even_if_nobody_tells_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    other = second(shop, tmp_path, shared=True)
    shop.append("order-1", placed(1))
    assert emails(other.read()) == ["ann@example.org"]
    erase(shop)
    assert isinstance(emails(other.read())[0], Erased)
    shop.close()
    other.close()


def test_when_the_disk_fails_nothing_is_erased(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.append("order-1", placed(1))

    def full(_store: MemoryStore, _write: Write) -> int:
        raise RecordsError("HBK-703", "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "commit", full)
        with pytest.raises(RecordsError):
            erase(shop)
    assert emails(shop.read()) == ["ann@example.org"]
    assert shop.entries(ERASURES) == []


def test_what_could_not_be_overwritten_yet_is_said(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.append("order-1", placed(1))
    monkeypatch.setattr(shop.rows, "scrub", lambda: False)
    certificate = shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    assert not certificate.scrubbed
    shop.again()
    assert shop.entries(ERASURES)[-1].public == b'{"certificate":1,"scrubbed":false}'


def test_a_ledger_without_keys_has_nobody_to_erase(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.close()
    shop.ledger.keys = None
    shop.store = type(shop.store)(shop.ledger, shop.rows, policy=shop.policy, pseudonyms=shop.pseudonyms)
    with pytest.raises(HauberkError):
        shop.store.erase("ann", actor=OWNER, reason="asked")
    shop.close()


@settings(max_examples=15, deadline=None)
@given(
    history=st.lists(st.tuples(st.sampled_from("ABC"), st.booleans()), min_size=1, max_size=25),
)
def test_whatever_the_history_the_erased_are_exactly_those(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, bool]]
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    expected: list[tuple[str, bool]] = []
    for person, erasing in history:
        if erasing and any(one == (person, False) for one in expected):
            erase(shop, person)
            expected = [(one, gone or one == person) for one, gone in expected]
        else:
            shop.append("order-1", placed(1, customer=person))
            expected.append((person, False))
    found = [event for event in shop.read("order-1") if isinstance(event, OrderPlaced)]
    assert [isinstance(event.email, Erased) for event in found] == [gone for _, gone in expected]
    verify_store(shop.inner, shop.ledger.verifier)
    shop.close()


# the file


def everything_on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("shop.db*")))


def filled(directory: Path) -> tuple[Shop, bytes]:
    """A shop on a file in which ann's data is everywhere it can be; with her wrapped key."""
    shop = Shop(directory, SqliteStore(directory / "shop.db"))
    for number in range(50):
        shop.append(f"order-{number}", placed(number, customer="ann", email=PLAINTEXT), placed(number, customer="bob"))
    shop.store.save_snapshot("order-1", 1, OrderState(customer="ann", email=PLAINTEXT, total=1), actor=OWNER).result()
    shop.store.save_snapshot("order-2", 1, {"email": PLAINTEXT}, subject="ann", actor=OWNER).result()
    [key_id] = shop.keys.key_ids("ann")
    row = shop.rows.get(KEY, key_id)
    assert row is not None
    return shop, row.value[8:]


def test_no_file_holds_plaintext_or_key_after_an_erasure(tmp_path: Path) -> None:
    shop, wrapped = filled(tmp_path)
    assert wrapped in everything_on_disk(tmp_path)
    assert (tmp_path / "shop.db-wal").stat().st_size > 0
    certificate = shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    assert certificate.scrubbed
    found = everything_on_disk(tmp_path)
    assert wrapped not in found
    assert not any(wrapped[at : at + 8] in found for at in range(0, len(wrapped) - 8, 8))
    assert PLAINTEXT.encode() not in found
    assert shop.keys.subject_row("ann") not in found
    shop.close()
    shop.inner.close()
    assert wrapped not in everything_on_disk(tmp_path)


def test_without_an_erasure_the_wrapped_key_is_there_and_opens_everything(tmp_path: Path) -> None:
    shop, wrapped = filled(tmp_path)
    found = everything_on_disk(tmp_path)
    assert wrapped in found
    assert PLAINTEXT.encode() not in found
    stolen = DataKey.unwrap(wrapped, shop.keys._tenant_key())
    entry = shop.entries("/streams/order-1")[0]
    keys, fields = unpack(entry.sealed)
    path, number, sealed = next(field for field in fields if field[0] == "email")
    aad = shop.keys.aad(entry.stream, entry.version, entry.type, path, keys[number][0])
    assert stolen.open(sealed, aad) == f'"{PLAINTEXT}"'.encode()
    shop.close()
    shop.inner.close()


def test_without_scrubbing_the_log_of_the_database_still_holds_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, wrapped = filled(tmp_path)
    monkeypatch.setattr(shop.rows, "scrub", lambda: False)
    shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    assert wrapped in everything_on_disk(tmp_path)
    shop.close()
    shop.inner.close()


def test_a_backup_made_before_holds_the_key_as_the_certificate_says(tmp_path: Path) -> None:
    shop, wrapped = filled(tmp_path)
    backup = everything_on_disk(tmp_path)
    certificate = shop.store.erase("ann", actor=OWNER, reason="asked").result(PATIENCE)
    assert wrapped in backup
    assert any("backup" in one for one in certificate.copies)
    shop.close()
    shop.inner.close()


def test_erasing_looks_at_one_person_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path, SqliteStore(tmp_path / "shop.db"))
    for at in range(0, 2_000, 500):
        shop.append("order-1", *(placed(number, customer=f"c{number}") for number in range(at, at + 500)))
    monkeypatch.setattr(SqliteStore, "scan", None)  # no scan of any space
    monkeypatch.setattr(SqliteStore, "entries", None)  # nor of the log
    own, stream = {ERASURES, HOLDS}, SqliteStore.stream

    def recorded(store: SqliteStore, log: str, name: str, **options: Any) -> Iterator[Entry]:  # noqa: ANN401  # as the port
        assert name in own
        return stream(store, log, name, **options)

    monkeypatch.setattr(SqliteStore, "stream", recorded)  # but for the records of erasures and holds
    began = time.perf_counter()
    shop.store.erase("c777", actor=OWNER, reason="asked").result(PATIENCE)
    assert time.perf_counter() - began < PATIENCE
    monkeypatch.undo()
    assert len(list(shop.rows.scan(SUBJECT, limit=10_000))) == 1_999
    shop.close()
    shop.inner.close()
