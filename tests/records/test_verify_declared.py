"""Statements, prunings and recoveries along a walk: what each allows, and what is found although the log signed it."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hauberk.adapters.mark import FileMark
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.clock import ManualClock
from hauberk.core.event import SIGNED, Entry, Event
from hauberk.core.ids import uuid7
from hauberk.crypto.note import Checkpoint, encode_key, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records import recover as recovering
from hauberk.records import retention, statement
from hauberk.records.batch import decode_batch
from hauberk.records.ledger import Ledger
from hauberk.records.positions import Positions
from hauberk.records.streams import RETENTION
from hauberk.records.verify import State, Trust, VerifyReport, declared, verify_since, verify_store
from hauberk.records.verify.statements import AT_ITS_WORD
from tests.records.forger import entries_of, leafed, renumbered, rewrite
from tests.records.made import DOMAIN, NOW, ORIGIN, PATIENCE, STREAM, Producer, certificate_authority, event
from tests.records.test_verify import KEY, SIGNER, single, sql

AUTHORITY = certificate_authority()
SERVICE = Producer(AUTHORITY)
OTHER = Producer(AUTHORITY, "other-service")
ROOTS = {DOMAIN: [AUTHORITY.root_der]}
PLAIN = SigningKey(b"key of an embedded runtime......")
PRODUCER = statement.Producer.of_key(PLAIN)
NAMED = Trust(roots=ROOTS, keys=frozenset({PRODUCER.fingerprint}))


def verify(path: Path, trust: Trust = AT_ITS_WORD, key: str = KEY) -> VerifyReport:
    store = open_readonly(path)
    try:
        return verify_store(store, key, trust=trust)
    finally:
        store.close()


def found(path: Path, trust: Trust = AT_ITS_WORD) -> tuple[object, object]:
    with pytest.raises(Tampered) as caught:
        verify(path, trust)
    return caught.value.context["kind"], caught.value.context["position"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Batches of a service, and entries of a producer with a plain key.

    0 introduces the service, 1 to 5 are its batch, 6 introduces the plain key, 7 to 9 are its own, 10 to 13 a second
    batch of the service, 14 is signed alone.
    """
    path = tmp_path_factory.mktemp("signed") / "log.db"
    store = SqliteStore(path)
    ledger = Ledger(store, SIGNER, ORIGIN, producer=PRODUCER, clock=ManualClock(NOW + 2))
    for count in (5, 4):
        data = SERVICE.sign([event(number) for number in range(count)])
        received = decode_batch(data, ROOTS, now_ns=NOW * 10**9 + 2 * 10**9)
        ledger.append_signed(received.pairs, received.signed).result(PATIENCE)
        if count == 5:
            ledger.append_batch([event(number, stream="/streams/a") for number in range(3)]).result(PATIENCE)
    ledger.append_batch([event(stream="/streams/b", alone=True)]).result(PATIENCE)
    ledger.close()
    store.close()
    return single(path)


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "log.db"
    copy.write_bytes(original.read_bytes())
    return copy


# statements


def test_every_signed_entry_is_covered_by_a_statement_that_holds(path: Path) -> None:
    report = verify(path, Trust(ROOTS, frozenset({PRODUCER.fingerprint}), require_signed=True))
    assert (report.size, report.signed, report.unsigned) == (15, 13, 2)
    assert report.producers == (PRODUCER.fingerprint.hex(), str(SERVICE.svid.spiffe_id))
    assert verify(path).producers == tuple(sorted((PRODUCER.fingerprint.hex(), entries_fingerprint())))


def entries_fingerprint() -> str:
    return statement.Producer.of_chain(SERVICE.chain, SERVICE.key.sign).fingerprint.hex()


def said(entries: list[Entry], at: int) -> statement.Statement:
    return statement.parse_statement(entries[at].statement)


def edited(entries: list[Entry]) -> Sequence[Entry]:
    """The operator changes what the service said, and makes the log fit."""
    entries[3] = replace(entries[3], public=b'{"number":99}')
    return renumbered(entries)


def unflagged(entries: list[Entry]) -> Sequence[Entry]:
    """And takes away the sign that there was a statement."""
    entries[1:6] = [replace(entry, statement=b"") for entry in entries[1:6]]
    entries[3] = replace(entries[3], public=b'{"number":99}')
    return [
        leafed(entry, entry.position, entry.version, flags=0) if 1 <= entry.position <= 5 else entry
        for entry in renumbered(entries)
    ]


def bare(entries: list[Entry]) -> Sequence[Entry]:
    entries[1] = replace(entries[1], statement=b"")
    return entries


def unread(entries: list[Entry]) -> Sequence[Entry]:
    entries[1] = replace(entries[1], statement=b"\xc1")
    return entries


def doubled(entries: list[Entry]) -> Sequence[Entry]:
    entries[3] = replace(entries[3], statement=entries[1].statement)
    return entries


def misplaced(entries: list[Entry]) -> Sequence[Entry]:
    entries[6] = replace(entries[6], statement=entries[1].statement)
    return entries


def stretched(entries: list[Entry]) -> Sequence[Entry]:
    entries[14] = replace(entries[14], statement=replace(said(entries, 14), count=2).encode())
    return entries


def over_the_next(entries: list[Entry]) -> Sequence[Entry]:
    entries[1] = replace(entries[1], statement=replace(said(entries, 1), count=6).encode())
    return entries


def cut(entries: list[Entry]) -> Sequence[Entry]:
    entries[1] = replace(entries[1], statement=replace(said(entries, 1), count=4).encode())
    return entries


def introduced_later(entries: list[Entry]) -> Sequence[Entry]:
    return renumbered([*entries[1:6], entries[0], *entries[6:]])


def introduced_wrongly(entries: list[Entry]) -> Sequence[Entry]:
    public = msgspec.json.decode(entries[0].public)
    entries[0] = replace(entries[0], public=msgspec.json.encode({**public, "fingerprint": "00" * 32}))
    return renumbered(entries)


FORGERIES = {
    edited: ("forged-signature", 1),
    bare: ("forged-signature", 1),
    unread: ("forged-signature", 1),
    doubled: ("forged-signature", 1),
    misplaced: ("forged-signature", 6),
    stretched: ("forged-signature", 14),
    over_the_next: ("forged-signature", 1),
    cut: ("forged-signature", 1),
    introduced_later: ("forged-signature", 0),
    introduced_wrongly: ("forged-signature", 0),
}


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__)
def test_what_a_service_said_cannot_be_forged_with_the_log_key(path: Path, change: object) -> None:
    rewrite(path, SIGNER, change)  # type: ignore[arg-type]  # a parameter
    assert found(path) == FORGERIES[change]  # type: ignore[index]  # the same


def test_an_entry_that_lost_its_flag_passes_unless_signatures_are_asked_for(path: Path) -> None:
    rewrite(path, SIGNER, unflagged)
    assert verify(path, NAMED).unsigned == 7  # the twin
    assert found(path, Trust(ROOTS, NAMED.keys, require_signed=True)) == ("unsigned", 1)


def restated(entries: list[Entry], who: statement.Producer) -> Sequence[Entry]:
    """The operator makes a producer of its own speak for the service."""
    entries[3] = replace(entries[3], public=b'{"number":99}')
    made = renumbered([own_introduction(entries[0], who), *entries])
    leaves = [entry.leaf for entry in made[2:7]]
    return [*made[:2], replace(made[2], statement=who.state(NOW * 10**9, leaves)), *made[3:]]


def own_introduction(like: Entry, who: statement.Producer) -> Entry:
    """An entry that introduces a producer."""
    meta = {**msgspec.json.decode(like.meta), "id": uuid7().hex()}
    return replace(like, meta=msgspec.json.encode(meta), public=msgspec.json.encode(who.certificate))


@pytest.mark.parametrize(
    "who",
    [
        statement.Producer.of_key(SigningKey(b"a key the operator made up......")),
        statement.Producer.of_chain(OTHER.chain, OTHER.key.sign),
    ],
    ids=["a key of its own", "another service"],
)
def test_a_service_is_who_the_roots_say_and_speaks_for_its_own_streams(path: Path, who: statement.Producer) -> None:
    rewrite(path, SIGNER, lambda entries: restated(entries, who))
    assert verify(path).signed == 13  # the twin: the log is taken at its word
    assert found(path, NAMED) == ("forged-signature", 2)


def dated(entries: list[Entry], time_ns: int) -> Sequence[Entry]:
    """The batch of the service with a statement of another time, made with its own key."""
    made = statement.Producer.of_chain(SERVICE.chain, SERVICE.key.sign)
    entries[1] = replace(entries[1], statement=made.state(time_ns, [entry.leaf for entry in entries[1:6]]))
    return entries


def test_a_chain_is_verified_at_the_time_of_the_statement(path: Path) -> None:
    rewrite(path, SIGNER, lambda entries: dated(entries, (NOW - 10**6) * 10**9))
    verify(path)  # the twin
    assert found(path, NAMED) == ("forged-signature", 1)


def test_roots_of_somebody_else_believe_nobody(path: Path) -> None:
    foreign = {DOMAIN: [certificate_authority().root_der]}
    assert found(path, Trust(roots=foreign)) == ("forged-signature", 1)
    assert found(path, Trust(keys=NAMED.keys)) == ("forged-signature", 1)


# what was pruned


def pruning(gone: Sequence[int], **fields: object) -> Event:
    """What the log says about positions that were pruned."""
    taken = Positions()
    for at in gone:
        taken.add(at)
    ((first, bitmaps),) = taken.parts(1_000)
    data = {"minimum": 512, "types": ["order.paid"], "segments": 2, "archive": "00", "first": first, "bitmaps": bitmaps}
    return event(type=retention.PRUNED, stream=RETENTION, data={**data, **fields})


def pruned_log(directory: Path, *, before: int = 512, drop: str = "type = 'order.paid'", size: int = 700) -> Path:
    """A log that says which of its entries were pruned, and of which those are gone."""
    path = directory / "log.db"
    store = SqliteStore(path)
    ledger = Ledger(store, SIGNER, ORIGIN)
    made = [event(number, stream=f"{STREAM}/{number % 3}") for number in range(size)]
    made[5] = replace(made[5], type="order.kept")
    ledger.append_batch(made).result(PATIENCE)
    reading = sqlite3.connect(path)
    which = f"position < {before} AND {drop}"
    gone = [row[0] for row in reading.execute(f"SELECT position FROM entry WHERE {which}")]  # noqa: S608  # constants
    reading.close()
    ledger.append_batch([pruning(gone), event()]).result(PATIENCE)
    ledger.close()
    store.close()
    sql(single(path), f"DELETE FROM entry WHERE {which}")  # noqa: S608  # constants
    return path


def test_the_names_are_those_of_the_modules_that_write_them() -> None:
    assert (declared.PRUNED, declared.RECOVERED) == (retention.PRUNED, recovering.RECOVERED)
    assert (declared.CERTIFIED, declared.PRODUCERS) == (statement.CERTIFIED, statement.STREAM)
    assert declared.EPOCHS == recovering.STREAM


# epochs


class House:
    """A database that was put back, and what was recovered of it."""

    def __init__(self, directory: Path) -> None:
        self.path, self.mark = directory / "log.db", FileMark(directory / "mark")
        self.old = self.write(30)
        copy = single(self.path).read_bytes()
        self.lost = self.write(10)
        single(self.path)
        self.path.write_bytes(copy)
        store = SqliteStore(self.path)
        self.recovery = recovering.recover(store, SIGNER, ORIGIN, self.mark, actor="uid:0", clock=ManualClock(NOW))
        store.close()
        self.new = self.write(5)
        self.mark.close()

    def write(self, count: int) -> str:
        store = SqliteStore(self.path)
        ledger = Ledger(store, SIGNER, ORIGIN, mark=self.mark)
        ledger.append_batch([event(number, stream=f"{STREAM}/{number % 3}") for number in range(count)]).result(
            PATIENCE
        )
        note = ledger.checkpoint()
        ledger.close()
        store.close()
        return note


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_recovery_is_accepted_and_reported(house: House) -> None:
    report = verify(house.path)
    assert (report.size, report.origin) == (36, f"{ORIGIN}/epoch-1")
    (one,) = report.recoveries
    assert (one.epoch, one.position, one.lost) == (1, 30, (30, 39))
    assert verify(house.path, key=encode_key(f"{ORIGIN}/epoch-1", SIGNER.public)).size == 36


def test_a_key_of_another_epoch_is_refused(house: House) -> None:
    with pytest.raises(RecordsError) as caught:
        verify(house.path, key=encode_key(f"{ORIGIN}/epoch-2", SIGNER.public))
    assert (caught.value.code, caught.value.context["kind"]) == ("HBK-713", "rolled-back")

    def twice(entries: list[Entry]) -> Sequence[Entry]:
        data = {"found": house.new, "known": "", "lost": None, "epoch": 2}
        return [*entries, declaring(entries, data)]

    rewrite(house.path, SIGNER, twice, epoch=2)
    assert [one.epoch for one in verify(house.path).recoveries] == [1, 2]
    with pytest.raises(RecordsError) as caught:
        verify(house.path, key=encode_key(f"{ORIGIN}/epoch-1", SIGNER.public))
    assert (caught.value.code, caught.value.context["kind"]) == ("HBK-711", "wrong-key")
    assert "epoch 1" in caught.value.detail


def declaring(entries: list[Entry], data: object) -> Entry:
    """An entry at the end that declares a recovery."""
    like = next(entry for entry in entries if entry.type == declared.RECOVERED)
    meta = {**msgspec.json.decode(like.meta), "id": uuid7().hex()}
    version = 1 + sum(entry.stream == declared.EPOCHS for entry in entries)
    made = replace(like, meta=msgspec.json.encode(meta), public=msgspec.json.encode(data))
    return leafed(made, len(entries), version)


@pytest.mark.parametrize("name", ["found", "known", "lost", "epoch", "junk"])
def test_a_recovery_that_was_none_is_found(house: House, name: str) -> None:
    other = sign_checkpoint(Checkpoint(ORIGIN, 30, bytes(32)), SIGNER)
    said: dict[str, object] = {
        "found": other, "known": sign_checkpoint(Checkpoint(ORIGIN, 50, bytes(32)), SIGNER), "lost": [30, 35],
        "epoch": 2, "junk": 0,
    }  # fmt: skip

    def lying(entries: list[Entry]) -> Sequence[Entry]:
        data = msgspec.json.decode(entries[30].public)
        public = b"{}" if name == "junk" else msgspec.json.encode({**data, name: said[name]})
        entries[30] = leafed(replace(entries[30], public=public), 30, 1)
        return entries

    rewrite(house.path, SIGNER, lying, epoch=1)
    assert found(house.path) == ("epoch", 30)


def test_an_epoch_that_no_entry_declares_is_found(house: House) -> None:
    rewrite(house.path, SIGNER, lambda entries: entries, epoch=2)
    assert found(house.path)[0] == "epoch"
    rewrite(house.path, SIGNER, lambda entries: entries, epoch=0)
    assert found(house.path)[0] == "epoch"
    sql(house.path, "UPDATE head SET epoch = 1")
    assert found(house.path)[0] == "epoch"


def test_what_was_lost_in_a_recovery_stays_a_finding_for_who_has_a_checkpoint_of_it(house: House) -> None:
    store = open_readonly(house.path)
    try:
        for known, expected in ((house.old, None), (house.new, None), (house.lost, 30)):
            if expected is None:
                assert verify_store(store, KEY, known=known).size == 36
                continue
            with pytest.raises(Tampered) as caught:
                verify_store(store, KEY, known=known)
            assert caught.value.code == "HBK-713"
            assert (caught.value.context["position"], caught.value.context["declared"]) == (30, 30)
            state = verify_since(store, KEY, None)[1]
            with pytest.raises(Tampered) as again:
                verify_since(store, KEY, State.parse(state.encode()), known=known)
            assert again.value.context == caught.value.context
    finally:
        store.close()


def test_only_signed_entries_are_flagged(path: Path) -> None:
    flagged = [entry.position for entry in entries_of(path) if entry.leaf[1] & SIGNED]
    assert flagged == [1, 2, 3, 4, 5, 7, 8, 9, *range(10, 15)]
