"""One key a person: values open in their own place, under their own key, until that key is destroyed."""

import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.memory import MemoryStore
from hauberk.core.event import Entry, Event, Private
from hauberk.core.ports import ANY, Put, Row, Store, Write
from hauberk.crypto.datakey import DataKey
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Conflict, HauberkError, Malformed, Oversized, Tampered, UnknownSubject
from hauberk.records.keys import ERASED, KEY, SUBJECT, Lost, SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.sealed import commitment_of, parts, unpack
from tests.records.made import ORIGIN, PATIENCE, event

EMAIL = b'"ann@example.org"'


class Desk:
    """A ledger whose events have private values."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.raw = MemoryStore()
        self.keyring = Keyring(FileKeySource(directory / "keys"))
        self.store = AuthenticRows(self.raw, self.keyring)
        self.keys = SubjectKeys(self.store, self.keyring, **settings)  # type: ignore[arg-type]  # of a test
        self.ledger = Ledger(self.store, SigningKey.generate(), ORIGIN, keys=self.keys)

    def write(self, *events: Event) -> list[Entry]:
        receipts = self.ledger.append_batch(events).result(PATIENCE)
        return [self.entry(receipt.position) for receipt in receipts]

    def entry(self, position: int | None) -> Entry:
        assert position is not None
        return next(self.ledger.entries(after=position - 1, limit=1))

    def put(self, value: bytes = EMAIL, subject: str = "ann", path: str = "email") -> Entry:
        return self.write(event(private=(Private(path, subject, value),)))[0]

    def erase(self, subject: str) -> None:
        certificate = event(type="records.erased")
        rows = self.keys.erasing(subject).rows(certificate.id)
        self.ledger.append_batch((certificate,), rows=rows).result(PATIENCE)

    def again(self) -> SubjectKeys:
        """The keys as another process sees them."""
        return SubjectKeys(self.store, self.keyring)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


def test_a_sealed_value_comes_back_and_is_nowhere_in_clear(desk: Desk) -> None:
    entry = desk.put()
    assert desk.keys.open(entry) == {"email": EMAIL}
    assert desk.again().open(entry) == {"email": EMAIL}
    stored = b"".join((entry.leaf, entry.meta, entry.public, entry.sealed))
    assert b"ann" not in stored
    rows = [row for space in (SUBJECT, KEY) for row in desk.raw.scan(space)]
    assert len(rows) == 2
    assert all(b"ann" not in row.key + row.value for row in rows)


def test_the_leaf_covers_the_ciphertext_and_commits_to_the_keys(desk: Desk) -> None:
    entry = desk.write(event(private=(Private("buyer", "ann", b"1"), Private("seller", "bob", b"2"))))[0]
    keys, fields = unpack(entry.sealed)
    assert [path for path, _, _ in fields] == ["buyer", "seller"]
    assert len(keys) == 2
    assert entry.leaf[-64:-32] != entry.leaf[-32:] == commitment_of(keys)
    assert entry.leaf[90:122] == sha256(entry.sealed).digest()


def test_a_subject_has_one_key_for_all_its_events_and_others_have_others(desk: Desk) -> None:
    first, second, other = desk.put(), desk.put(b"2"), desk.put(subject="bob")
    assert desk.keys.owners(first) == desk.keys.owners(second) != desk.keys.owners(other)


def test_without_keys_a_private_value_is_refused_and_nothing_is_written() -> None:
    ledger = Ledger(MemoryStore(), SigningKey.generate(), ORIGIN)
    with pytest.raises(Malformed):
        ledger.append_batch([event(private=(Private("email", "ann", EMAIL),))]).result(PATIENCE)
    assert ledger.head().size == 0
    ledger.close()


def test_nobodys_value_and_one_too_large_are_refused_alone(desk: Desk) -> None:
    with pytest.raises(UnknownSubject):
        desk.put(subject="")
    with pytest.raises(Oversized):
        desk.put(b'"' + b"x" * 70_000 + b'"')
    assert desk.put().position == 0


# the place


def moved(entry: Entry, **to: object) -> Entry:
    return replace(entry, **to)


@pytest.mark.parametrize("to", [{"stream": "/streams/other"}, {"version": 2}, {"type": "other"}], ids=str)
def test_a_value_does_not_open_in_another_place(desk: Desk, to: dict[str, object]) -> None:
    entry = desk.put()
    with pytest.raises(Tampered):
        desk.keys.open(moved(entry, **to))


def test_without_a_place_in_its_seal_a_value_moved_to_another_event_reads_as_if_it_belonged() -> None:
    key = DataKey.generate()
    balance_of_bob = key.seal(b"1000000", b"", bytes(12))
    assert key.open(balance_of_bob, b"") == b"1000000"  # pasted over ann's, nothing tells


def test_a_value_does_not_open_as_another_field_or_under_another_subject(desk: Desk) -> None:
    entry = desk.write(
        event(private=(Private("a", "ann", b"1"), Private("b", "ann", b"2"), Private("c", "bob", b"3")))
    )[0]
    keys, fields = unpack(entry.sealed)
    swapped = msgspec.msgpack.encode((keys, [(fields[1][0], *fields[0][1:]), (fields[0][0], *fields[1][1:])]))
    with pytest.raises(Tampered):
        desk.keys.open(moved(entry, sealed=swapped))
    other = msgspec.msgpack.encode((keys, [(fields[0][0], 1, fields[0][2])]))
    with pytest.raises(Tampered):
        desk.keys.open(moved(entry, sealed=other))


def test_a_value_of_one_tenant_does_not_open_for_another(desk: Desk) -> None:
    entry = desk.put()
    stranger = SubjectKeys(desk.store, desk.keyring, "other")
    stranger._tenant_key()
    with pytest.raises(HauberkError):
        stranger.open(entry)
    assert not stranger.known("ann")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=6), max_size=5), st.lists(st.binary(max_size=6), max_size=5))
def test_no_two_places_have_the_same_bytes(first: list[bytes], second: list[bytes]) -> None:
    assert (parts(*first) == parts(*second)) == (first == second)


# the key


def _times(a: int, b: int) -> int:
    """Multiply in GCM's field (NIST SP 800-38D section 6.3), bits reversed as there."""
    product = 0
    for at in range(127, -1, -1):
        if a >> at & 1:
            product ^= b
        b = b >> 1 ^ (0xE1 << 120 if b & 1 else 0)
    return product


def _inverse(a: int) -> int:
    result, power = 1 << 127, a
    for _ in range(127):
        power = _times(power, power)
        result = _times(result, power)
    return result


def _block(key: bytes, block: bytes) -> int:
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  # the raw block, for the attack
    return int.from_bytes(cipher.update(block))


def two_faced(first: bytes, second: bytes, nonce: bytes) -> bytes:
    """Return a ciphertext that opens under both keys: one block is chosen so that the two tags are equal."""
    length = int.from_bytes(struct.pack(">QQ", 0, 256))
    chosen = int.from_bytes(sha256(b"any").digest()[:16])
    tags = []
    for key in (first, second):
        h = _block(key, bytes(16))
        squared = _times(h, h)
        tags.append(
            (squared, _times(chosen, _times(squared, h)) ^ _times(length, h) ^ _block(key, nonce + b"\0\0\0\1"))
        )
    (h1, rest1), (h2, rest2) = tags
    solved = _times(rest1 ^ rest2, _inverse(h1 ^ h2))
    tag = rest1 ^ _times(solved, h1)
    return b"".join(part.to_bytes(16) for part in (chosen, solved, tag))


def test_a_ciphertext_with_two_faces_opens_under_two_keys_of_plain_gcm_and_is_refused_by_the_commitment(
    desk: Desk,
) -> None:
    one, other, nonce = b"1" * 32, b"2" * 32, bytes(12)
    forged = two_faced(one, other, nonce)
    faces = {AESGCM(key).decrypt(nonce, forged, b"") for key in (one, other)}
    assert len(faces) == 2  # without the control: an operator shows one text to one reader, and another to another
    assert DataKey(one).commitment != DataKey(other).commitment
    entry = desk.put()
    key_id = bytes.fromhex(desk.keys.owners(entry)["email"])
    row = desk.store.get(KEY, key_id)
    assert row is not None
    exchanged = row.value[:8] + DataKey(other).wrap(desk.keys._tenant_key())
    desk.store.commit(Write(rows=(Put(KEY, key_id, exchanged, ANY),)))
    with pytest.raises(Tampered):
        desk.again().open(entry)


def test_a_database_writer_cannot_put_one_subjects_key_under_another_name(desk: Desk) -> None:
    desk.put()
    desk.put(subject="bob")
    ann, bob = desk.raw.scan(SUBJECT)
    desk.raw.commit(Write(rows=(Put(SUBJECT, ann.key, bob.value),)))
    with pytest.raises(Tampered):
        [desk.again().known(name) for name in ("ann", "bob")]
    twin = SubjectKeys(desk.raw, desk.keyring)  # without authentic rows it goes unseen: bob's erasure is ann's
    names = [desk.keys.subject_row(name) for name in ("ann", "bob")]
    assert {row.key for row in desk.raw.scan(SUBJECT)} == set(names)
    assert twin.key_ids("ann") == twin.key_ids("bob")


def test_a_changed_leaf_or_sealed_part_is_refused(desk: Desk) -> None:
    entry = desk.put()
    with pytest.raises(Tampered):
        desk.keys.open(moved(entry, leaf=entry.leaf[:-1] + b"x"))
    for sealed in (b"\xc1", b"\x92\x90\x91\x93\xa1a\x05\xc4\x00", entry.sealed[:-1]):
        with pytest.raises(Tampered):
            desk.keys.open(moved(entry, sealed=sealed))


# the budget


def test_a_key_seals_no_more_than_its_budget_and_the_next_one_takes_over(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget=4, lease=2)
    entries = [desk.put(str(number).encode()) for number in range(10)]
    used = [desk.keys.owners(entry)["email"] for entry in entries]
    assert [used.count(one) for one in dict.fromkeys(used)] == [4, 4, 2]
    assert [desk.keys.open(entry)["email"] for entry in entries] == [str(number).encode() for number in range(10)]
    assert len(desk.keys.key_ids("ann")) == 3
    many = desk.write(event(private=tuple(Private(f"f{at}", "ann", b"1") for at in range(9))))[0]
    assert len(desk.keys.open(many)) == 9
    desk.erase("ann")
    assert all(isinstance(desk.keys.open(entry)["email"], Lost) for entry in entries)
    assert all(isinstance(value, Lost) for value in desk.keys.open(many).values())
    desk.ledger.close()


def test_a_restart_takes_a_new_lease_so_that_a_crash_can_only_waste_messages(tmp_path: Path) -> None:
    desk = Desk(tmp_path, budget=4, lease=2)
    first = desk.put()
    desk.keys.forget_all()
    second, third = desk.put(), desk.put()
    desk.keys.forget_all()
    fourth = desk.put()
    owners = [desk.keys.owners(entry)["email"] for entry in (first, second, third, fourth)]
    assert owners[0] == owners[1] == owners[2] != owners[3]
    desk.ledger.close()


# the end


def test_what_was_erased_is_lost_for_every_reader_and_says_by_which_certificate(desk: Desk) -> None:
    entry, other = desk.put(), desk.put(subject="bob")
    reader = desk.again()
    assert reader.open(entry) == {"email": EMAIL}
    certificate = event(type="records.erased")
    erasing = desk.keys.erasing("ann")
    assert [key for key, _ in erasing.keys] == list(desk.keys.owners(entry).values())
    desk.ledger.append_batch((certificate,), rows=erasing.rows(certificate.id)).result(PATIENCE)
    lost = desk.keys.open(entry)["email"]
    assert lost == Lost(erasing.keys[0][0], certificate.id)
    assert desk.keys.open(other) == {"email": EMAIL}
    assert not desk.keys.known("ann")
    assert [row.value for row in desk.store.scan(ERASED)] == [certificate.id]
    assert desk.ledger.proof(entry.position).leaf == entry.leaf
    reader.forget([bytes.fromhex(erasing.keys[0][0])])
    assert isinstance(reader.open(entry)["email"], Lost)
    with pytest.raises(UnknownSubject):
        desk.keys.erasing("ann")


def test_an_event_after_the_erasure_gets_a_new_key_even_when_both_were_handed_over_at_once(desk: Desk) -> None:
    before = desk.put()
    certificate = event(type="records.erased")
    rows = desk.keys.erasing("ann").rows(certificate.id)
    both = [
        desk.ledger.append_batch((certificate,), rows=rows),
        desk.ledger.append_batch((event(private=(Private("email", "ann", b'"new"'),)),)),
    ]
    after = desk.entry(both[1].result(PATIENCE)[0].position)
    assert isinstance(desk.keys.open(before)["email"], Lost)
    assert desk.keys.open(after) == {"email": b'"new"'}


def test_a_key_that_is_gone_without_a_certificate_is_tampering(desk: Desk) -> None:
    entry = desk.put()
    (row,) = desk.raw.scan(KEY)
    desk.raw._rows.pop((KEY, row.key))
    with pytest.raises(Tampered):
        desk.again().open(entry)


def test_a_writer_elsewhere_does_not_seal_under_a_key_that_was_erased_meanwhile(desk: Desk) -> None:
    elsewhere_keys = SubjectKeys(desk.store, desk.keyring, shared=True)
    elsewhere = Ledger(desk.store, desk.ledger._signer, ORIGIN, keys=elsewhere_keys)
    desk.put()
    elsewhere.append_batch([event(private=(Private("email", "ann", b"1"),))]).result(PATIENCE)
    desk.keys.forget_all()
    desk.erase("ann")
    late = elsewhere.append_batch([event(private=(Private("email", "ann", b"2"),))]).result(PATIENCE)
    assert elsewhere_keys.open(desk.entry(late[0].position)) == {"email": b"2"}
    elsewhere.close()


def test_an_erasure_that_loses_a_race_changes_nothing(desk: Desk) -> None:
    entry = desk.put()
    certificate = event(type="records.erased")
    rows = desk.keys.erasing("ann").rows(certificate.id)
    desk.keys.forget_all()
    desk.put(b"2")  # takes another lease on the key: its row is another one now
    with pytest.raises(Conflict):
        desk.ledger.append_batch((certificate,), rows=rows).result(PATIENCE)
    assert desk.keys.open(entry) == {"email": EMAIL}
    assert not list(desk.store.scan(ERASED))


def test_a_hold_is_remembered_until_it_is_lifted(desk: Desk) -> None:
    assert desk.keys.held("ann") == ""
    desk.store.commit(Write(rows=(desk.keys.hold("ann", "case 17"),)))
    assert desk.again().held("ann") == "case 17"
    desk.store.commit(Write(rows=(desk.keys.lift("ann"),)))
    assert desk.keys.held("ann") == ""


def test_nothing_shows_a_key_or_a_value(desk: Desk) -> None:
    desk.put()
    shown = repr(desk.keys) + repr(DataKey.generate()) + repr(Private("email", "ann", EMAIL))
    assert "ann" not in shown
    with pytest.raises(TypeError):
        DataKey.generate().__reduce__()


# a reader beside an erasure


class Slow:
    """A store that lets one reader wait with a row in its hand."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.armed = False
        self.holding = threading.Event()
        self.go = threading.Event()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a store has
        return getattr(self.inner, name)

    def get(self, space: str, key: bytes) -> Row | None:
        row = self.inner.get(space, key)
        if self.armed and space == KEY:
            self.armed = False
            self.holding.set()
            assert self.go.wait(PATIENCE)
        return row


def raced(desk: Desk, act: Callable[[], None]) -> tuple[SubjectKeys, Entry]:
    """Let a reader fetch the row of ann's key, then `act`, then let the reader go on."""
    entry = desk.put()
    slow = Slow(desk.store)
    keys = SubjectKeys(slow, desk.keyring)
    keys._tenant_key()
    slow.armed = True
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(keys.open, entry)
        assert slow.holding.wait(PATIENCE)
        act()
        keys.forget([bytes.fromhex(desk.keys.owners(entry)["email"])])
        slow.go.set()
        reading.result(PATIENCE)
    return keys, entry


def test_a_key_read_before_an_erasure_is_not_kept_after_it(desk: Desk) -> None:
    keys, entry = raced(desk, lambda: desk.erase("ann"))
    assert isinstance(keys.open(entry)["email"], Lost)
    assert not keys._open


def test_without_looking_again_it_would_be_kept_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(keys: SubjectKeys, _: object) -> None:  # as it was: nothing remembers that something was dropped
        keys._open.clear()

    monkeypatch.setattr(SubjectKeys, "forget", forget)
    keys, entry = raced(desk, lambda: desk.erase("ann"))
    assert keys.open(entry) == {"email": EMAIL}


def test_whoever_looked_again_has_what_is_still_there(desk: Desk) -> None:
    keys, entry = raced(desk, lambda: None)
    assert keys.open(entry) == {"email": EMAIL}
    assert len(keys._open) == 1


def test_a_key_that_was_made_while_others_were_dropped_is_looked_up_again(desk: Desk) -> None:
    desk.put()
    sealing = desk.keys.sealing()
    sealing.seal((Private("email", "ann", EMAIL),), "/streams/a", 1, "a.b")
    assert list(desk.keys._live) == ["ann"]
    desk.keys.forget([b"x" * 16])
    sealing.done()
    assert not desk.keys._live
    again = desk.keys.sealing()
    again.seal((Private("email", "ann", EMAIL),), "/streams/a", 1, "a.b")
    again.done()
    assert list(desk.keys._live) == ["ann"]


def test_that_a_key_was_destroyed_is_asked_before_the_key(desk: Desk) -> None:
    entry = desk.put()
    [row] = desk.store.scan(KEY)
    desk.erase("ann")
    desk.store.commit(Write(rows=(Put(KEY, row.key, row.value),)))  # put back
    assert isinstance(desk.again().open(entry)["email"], Lost)
