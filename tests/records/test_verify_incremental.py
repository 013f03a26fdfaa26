"""What was added since the last verification continues what was verified, and costs no more than itself."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.adapters.audited import AuditedFile
from hauberk.adapters.sqlite import SqliteStore, open_readonly
from hauberk.core.event import Entry, Event
from hauberk.crypto.note import encode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records.ledger import Ledger
from hauberk.records.statement import Producer
from hauberk.records.verify import State, Trust, VerifyReport, verify_since, verify_store
from hauberk.records.verify.incremental import Streams
from tests.records.forger import leafed, rewrite
from tests.records.made import ORIGIN, PATIENCE, STREAM, event
from tests.records.test_verify import KEY, SIGNER, single, sql

PRODUCER = Producer.of_key(SigningKey(b"key of an embedded runtime......"))
OLD, NEW = 600, 300


class Grown:
    """A log that is verified, grows, and is verified again."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log.db"
        self.append(OLD)
        report, self.state = self.since(None)
        assert report.size == OLD + 1  # the producer is introduced first

    def append(self, count: int, *more: Event) -> None:
        store = SqliteStore(self.path)
        ledger = Ledger(store, SIGNER, ORIGIN, producer=PRODUCER)
        made = [event(number, stream=f"{STREAM}/{number % 7}") for number in range(count)]
        ledger.append_batch([*made, *more]).result(PATIENCE)
        ledger.close()
        store.close()
        single(self.path)

    def since(self, state: State | None, **named: Any) -> tuple[VerifyReport, State]:  # noqa: ANN401  # what is passed on
        store = AuditedFile(self.path)
        try:
            return verify_since(store, KEY, state and State.parse(state.encode()), **named)
        finally:
            store.close()

    def found(self, state: State | None = None, **named: Any) -> tuple[str, object, object]:  # noqa: ANN401  # the same
        with pytest.raises(Tampered) as caught:
            self.since(state or self.state, **named)
        return caught.value.code, caught.value.context["kind"], caught.value.context["position"]


@pytest.fixture
def log(tmp_path: Path) -> Grown:
    return Grown(tmp_path)


def full(log: Grown) -> VerifyReport:
    store = open_readonly(log.path)
    try:
        return verify_store(store, KEY)
    finally:
        store.close()


def test_what_was_added_is_verified_and_leads_to_the_same_root(log: Grown) -> None:
    log.append(NEW, event(stream="/streams/new"))
    report, after = log.since(log.state)
    assert (report.start, report.size, report.root) == (OLD + 1, OLD + NEW + 2, full(log).root)
    assert (report.streams, report.signed) == (9, NEW + 1)
    log.append(1)
    report, _ = log.since(after)
    assert (report.start, report.size) == (OLD + NEW + 2, OLD + NEW + 3)
    assert report.root == full(log).root
    assert log.since(after)[1].encode() == log.since(None)[1].encode()


def test_nothing_new_is_fine_too(log: Grown) -> None:
    report, after = log.since(log.state)
    assert (report.start, report.size) == (OLD + 1, OLD + 1)
    assert after.encode() == log.state.encode()


class Counting(AuditedFile):
    """Counts the entries that are read."""

    read = 0

    def rows(self, log: str, *, after: int, page: int) -> Iterator[list[Any]]:
        for rows in super().rows(log, after=after, page=page):
            self.read += len(rows)
            yield rows


def test_only_what_was_added_is_read(log: Grown) -> None:
    log.append(NEW)
    store = Counting(log.path)
    verify_since(store, KEY, log.state)
    store.close()
    assert store.read == NEW


def test_what_changed_in_what_was_verified_is_left_to_a_full_verification(log: Grown) -> None:
    """The honest limit: entries below the old size are not read again."""
    log.append(NEW)
    sql(log.path, "UPDATE entry SET public = CAST('{}' AS BLOB) WHERE position = 100")
    assert log.since(log.state)[0].size == OLD + NEW + 1
    with pytest.raises(Tampered) as caught:
        full(log)
    assert caught.value.context["position"] == 100


def test_a_log_shorter_than_it_was_is_found(log: Grown, tmp_path: Path) -> None:
    log.append(NEW)
    _, after = log.since(log.state)
    older = tmp_path / "older"
    older.mkdir()
    short = Grown(older)
    assert short.found(after) == ("HBK-713", "rolled-back", OLD + 1)


def test_another_past_under_a_longer_log_is_found(log: Grown) -> None:
    """The operator rewrites what was verified, and signs it."""
    log.append(NEW)

    def past(entries: list[Entry]) -> Sequence[Entry]:
        changed = replace(entries[100], public=b'{"number":-1}')
        entries[100] = leafed(changed, 100, changed.version)
        return entries

    rewrite(log.path, SIGNER, past)
    code, kind, _ = log.found()
    assert (code, kind) == ("HBK-710", "rewritten")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE entry SET public = CAST('{}' AS BLOB) WHERE position = 700", ("edited", 700)),
        ("DELETE FROM entry WHERE position = 700", ("deleted", 700)),
        ("DELETE FROM entry WHERE position > 600", ("truncated", OLD + 1)),
        ("UPDATE tile SET data = zeroblob(8192) WHERE level = 0 AND number = 2", ("edited", OLD + 1)),
        ("UPDATE tile SET data = zeroblob(length(data)) WHERE level = 1", ("tile", 0)),
    ],
)
def test_tampering_with_what_is_new_is_found(log: Grown, statement: str, expected: tuple[str, int]) -> None:
    log.append(NEW)
    log.since(log.state)
    sql(log.path, statement)
    assert log.found()[1:] == expected


def renumbering(entries: list[Entry]) -> Sequence[Entry]:
    """A stream begins again: its versions are taken twice."""
    last = entries[-1]
    entries[-1] = leafed(last, last.position, 1)
    return entries


def replaying(entries: list[Entry]) -> Sequence[Entry]:
    """An old event once more, as if it were a new one."""
    meta = {**msgspec.json.decode(entries[-1].meta), "id": entries[100].id.hex()}
    again = replace(entries[-1], meta=msgspec.json.encode(meta), statement=b"")
    return [*entries[:-1], leafed(again, again.position, again.version, flags=0)]


def test_versions_go_on_from_those_that_were_verified(log: Grown) -> None:
    log.append(1)
    sql(log.path, "DROP INDEX entry_stream")
    rewrite(log.path, SIGNER, renumbering)
    assert log.found()[1:] == ("reordered", OLD + 1)


class Indexed(AuditedFile):
    """An index that still knows the first of two."""

    def find(self, log: str, ids: Sequence[bytes]) -> Mapping[bytes, int]:
        found: dict[bytes, int] = {}
        for entry in self.entries(log, limit=10_000):
            if entry.id in set(ids):
                found.setdefault(entry.id, entry.position)
        return found


def test_an_old_event_as_a_new_one_is_found_by_the_index_or_by_a_full_verification(log: Grown) -> None:
    log.append(1)
    sql(log.path, "DROP INDEX entry_id")
    rewrite(log.path, SIGNER, replaying)
    for store, state in ((Indexed(log.path), log.state), (open_readonly(log.path), None)):
        with pytest.raises(Tampered) as caught:
            verify_since(store, KEY, state)
        store.close()
        assert (caught.value.context["kind"], caught.value.context["position"]) == ("replayed", OLD + 1)
    assert log.since(log.state)[0].size == OLD + 2  # the twin: whoever broke the index as well is not found by this


def test_checkpoints_from_before_are_compared_by_proof(log: Grown, tmp_path: Path) -> None:
    old = log.state.note
    log.append(NEW)
    _, after = log.since(log.state)
    assert log.since(after, known=old)[0].anchors[0].size == OLD + 1
    directory = tmp_path / "other"
    directory.mkdir()
    foreign = Grown(directory).state.note
    assert log.found(after, known=foreign) == ("HBK-710", "rewritten", OLD)


def test_producers_that_were_introduced_before_are_remembered(log: Grown) -> None:
    log.append(NEW)
    trust = Trust(keys=frozenset({PRODUCER.fingerprint}), require_signed=True)
    assert log.since(log.state, trust=trust)[0].signed == NEW
    forgotten = replace(log.state, producers={})
    assert log.found(forgotten, trust=trust)[1:] == ("forged-signature", OLD + 1)
    sql(log.path, "UPDATE entry SET public = CAST('{}' AS BLOB) WHERE position = 0")
    assert log.found(trust=trust)[1] == "forged-signature"


def test_the_state_of_another_log_or_key_is_refused(log: Grown) -> None:
    for other in (replace(log.state, log="example.com/ledger"), replace(log.state, key=bytes(32))):
        with pytest.raises(RecordsError) as caught:
            log.since(other)
        assert caught.value.code == "HBK-711"
    store = open_readonly(log.path)
    with pytest.raises(RecordsError):
        verify_since(store, encode_key(ORIGIN, SigningKey.generate().public), log.state)
    store.close()


# the file


def test_a_state_comes_back_as_it_was(log: Grown) -> None:
    data = log.state.encode()
    assert State.parse(data).encode() == data
    assert len(data) < 10_000 + 24 * 7


@given(st.binary(max_size=300))
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(RecordsError) as caught:
        State.parse(data)
    assert caught.value.code == "HBK-711"


def test_a_damaged_state_is_refused(log: Grown) -> None:
    data = log.state.encode()
    for at in range(0, len(data), 97):
        with pytest.raises(RecordsError):
            State.parse(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(RecordsError):
        State.parse(data[:-1])


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(1, 2**63 - 1), max_size=20), max_size=5))
def test_the_table_of_streams_is_a_dictionary(rounds: list[dict[str, int]]) -> None:
    known: dict[str, int] = {}
    streams = Streams()
    for versions in rounds:
        known.update(versions)
        streams = streams.updated(versions)
        assert len(streams) == len(known)
    assert {name: streams.version(name) for name in known} == known
    assert streams.version("never there") == known.get("never there", 0)
    names = [streams.table[at : at + 16] for at in range(0, len(streams.table), 24)]
    assert names == sorted(set(names))
