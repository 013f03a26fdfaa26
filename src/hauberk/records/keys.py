"""Keys of those whose data is recorded: one each, so that destroying it destroys the data and nothing else.

What is sealed goes into the third part of an entry, see `records.sealed`. Each value is AES-256-GCM under its subject's
key. The associated data is `hauberk seal 1`, tenant, stream, version (8 bytes), path, type and key id, each behind its
length in four bytes: a value opens in its own place and nowhere else. The clear parts never name the subject: an erased
one leaves a random key id behind, and nothing that links it.

Rows: `subject` finds a subject's key ids under a keyed hash; `subject-key` holds the wrapped key and how many messages
were leased on it; `tenant-key` the key that wraps them, sealed by the keyring; `erased` the certificate's event id;
`hold` why a subject may not be erased. A key is made, and its lease extended, in the very write that first uses it.

A row that is deleted or put back as it once was says the wrong thing, and no tag tells. So once a log is watched, what
was destroyed and who is held is asked of it as well, see `records.evidence`; of keys in memory nothing is asked.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from hauberk.core.event import NO_KEY, Entry, Private
from hauberk.core.ports import ABSENT_ROW, Check, Delete, Put, Store, Write
from hauberk.crypto.datakey import KEY_BYTES, MAX_MESSAGES, NONCE_BYTES, DataKey
from hauberk.crypto.keyring import Keyring, Purpose
from hauberk.errors import ConfigError, Conflict, RecordsError, Tampered, UnknownSubject
from hauberk.records.live import Live
from hauberk.records.sealed import commitment_of, field, pack, parts, unpack

if TYPE_CHECKING:
    from hauberk.records.evidence import Evidence

SUBJECT, KEY, TENANT, ERASED, HOLD = "subject", "subject-key", "tenant-key", "erased", "hold"
SPACES = frozenset({SUBJECT, KEY})  # rows that change under several writers; who loses looks again
CACHED = 4_096  # keys in memory, 2.5 kB each
LEASE = 1 << 16  # messages a process takes at a time from a key's budget
KEY_ID_BYTES = 16
NONCES = 64  # read at a time
_LABEL = b"hauberk seal 1"
_VERSION = (8).to_bytes(4)  # the length of a version
_HEAD = 8  # bytes of the lease in front of a wrapped key


class Lost(msgspec.Struct, frozen=True):
    """In place of a value whose key was destroyed.

    Args:
        key: hex of the key id.
        certificate: event id of the certificate of erasure.
    """

    key: str
    certificate: bytes


class Erasing(msgspec.Struct, frozen=True):
    """What has to be written to erase a subject; see `SubjectKeys.erasing`.

    Args:
        keys: key id and commitment of each of its keys, hex.
    """

    keys: tuple[tuple[str, str], ...]
    _ids: tuple[bytes, ...]
    _deletes: tuple[Delete, ...]

    def rows(self, certificate: bytes) -> Sequence[Put | Delete]:
        """Return the rows to write together with the certificate, whose event id this is."""
        return (*self._deletes, *(Put(ERASED, one, certificate) for one in self._ids))


class SubjectKeys:
    """Seals and opens; makes, finds and destroys keys. Thread-safe.

    Args:
        store: where wrapped keys are. Behind `adapters.authentic.AuthenticRows`, or a database writer could put one
            person's key under another's name. What those rows cannot tell is that they are old: see `watch`.
        keyring: seals the tenant's key.
        tenant: whose log this is.
        shared: other processes write here too: each write makes sure that the keys it used still exist.
        random: of keys, key ids and nonces.
        cached: keys kept in memory.
        budget: messages one key may seal (NIST SP 800-38D section 8.3).
        lease: how many of them are taken at a time.
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        tenant: str = "default",
        *,
        shared: bool = False,
        random: Callable[[int], bytes] = os.urandom,
        cached: int = CACHED,
        budget: int = MAX_MESSAGES,
        lease: int = LEASE,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._tenant = tenant.encode()
        self._place = parts(_LABEL, self._tenant)
        self.shared = shared
        self._random = random
        self._cached = cached
        self.budget = budget
        self.lease = min(lease, budget)
        self._lock = threading.Lock()  # guards everything below
        self._live: OrderedDict[str, Live] = OrderedDict()  # by subject, the latest used last
        self._open: OrderedDict[bytes, DataKey] = OrderedDict()  # by key id, the latest used last
        self._forgotten = 0  # how often keys were dropped: what was read before that is not kept
        self._wrapping = b""
        self._evidence: dict[str, Evidence] = {}  # by log

    def watch(self, evidence: "Evidence") -> "Evidence":
        """Believe what a log says about keys, whatever rows say; return the evidence in use for that log."""
        return self._evidence.setdefault(evidence.log, evidence)

    # where things are

    def subject_row(self, subject: str) -> bytes:
        """Return the key of a subject's rows, which tells nothing about it without the keyring.

        Raises:
            UnknownSubject: HBK-717 the name is empty.
        """
        if not subject:
            raise UnknownSubject("a subject has a name")
        return self._keyring.mac(Purpose.SUBJECT, parts(self._tenant, subject.encode("utf-8", "surrogatepass")))

    def _tenant_key(self) -> bytes:
        with self._lock:
            if not self._wrapping:
                row = self._store.get(TENANT, self._tenant)
                if row is None:
                    self._make_tenant_key()
                    row = self._store.get(TENANT, self._tenant)
                if row is None:
                    raise RecordsError("HBK-706", "the tenant's key is gone")
                self._wrapping = self._keyring.open(Purpose.TENANT_KEY, row.value, aad=self._tenant)
            return self._wrapping

    def _make_tenant_key(self) -> None:
        sealed = self._keyring.seal(Purpose.TENANT_KEY, self._random(KEY_BYTES), aad=self._tenant)
        try:
            self._store.commit(Write(rows=(Put(TENANT, self._tenant, sealed, expected=ABSENT_ROW),)))
        except Conflict:
            return  # somebody else made it at the same time

    def key_ids(self, subject: str) -> tuple[bytes, ...]:
        """Return the ids of a subject's keys, the one in use first; none when nothing of it is kept."""
        row = self._store.get(SUBJECT, self.subject_row(subject))
        return _ids(row.value) if row is not None else ()

    def known(self, subject: str) -> bool:
        """Tell whether there is a key of this subject."""
        return bool(self.key_ids(subject))

    # sealing, by the ledger

    def sealing(self) -> "Sealing":
        """Return what seals the values of one write."""
        return Sealing(self)

    def live(self, subject: str) -> Live | None:
        """Return the key a subject's values are sealed with now, from memory or the store."""
        with self._lock:
            found = self._live.get(subject)
            if found is not None:
                self._live.move_to_end(subject)
                return found
        ids = self.key_ids(subject)
        row = self._store.get(KEY, ids[0]) if ids else None
        if row is None or self._certificate(ids[0]) is not None:  # destroyed, and put back: what is new gets a new one
            return None
        key = DataKey.unwrap(row.value[_HEAD:], self._tenant_key())
        return Live(ids[0], key, 0, int.from_bytes(row.value[:_HEAD]), row.revision)

    @property
    def forgotten(self) -> int:
        """How often keys were dropped; see `made`."""
        with self._lock:
            return self._forgotten

    def made(self, keys: Mapping[str, Live], forgotten: int) -> None:
        """Take note of keys whose rows are durable now, unless some were dropped since they were looked up."""
        with self._lock:
            if forgotten != self._forgotten:
                for subject in keys:  # what an older copy says about its lease is wrong now
                    self._live.pop(subject, None)
                return
            self._live.update(keys)
            while len(self._live) > self._cached:
                self._live.popitem(last=False)

    def fresh(self) -> tuple[bytes, DataKey]:
        """Return a new key and its id."""
        return self._random(KEY_ID_BYTES), DataKey.generate(self._random)

    def row_of(self, one: Live) -> bytes:
        """Return the value of a key's row."""
        return one.leased.to_bytes(_HEAD) + one.key.wrap(self._tenant_key())

    def nonces(self) -> Iterator[bytes]:
        """Yield random nonces, read from the system many at a time; nobody keeps the iterator over a write."""
        while True:
            many = self._random(NONCE_BYTES * NONCES)
            yield from (many[at : at + NONCE_BYTES] for at in range(0, len(many), NONCE_BYTES))

    def place(self, stream: str, version: int) -> bytes:
        """Return the part of the associated data that all values of an entry share."""
        name = stream.encode()
        return self._place + len(name).to_bytes(4) + name + _VERSION + version.to_bytes(8)

    def aad(self, stream: str, version: int, kind: str, path: str, key: bytes) -> bytes:
        """Return what a sealed value is bound to."""
        return self.place(stream, version) + field(path, kind) + parts(key)

    # opening, by readers

    @staticmethod
    def owners(entry: Entry) -> Mapping[str, str]:
        """Return, for each sealed path, the hex id of its key; opens nothing."""
        keys, fields = unpack(entry.sealed)
        return {path: keys[number][0].hex() for path, number, _ in fields}

    def open(self, entry: Entry, paths: Collection[str] | None = None) -> Mapping[str, bytes | Lost]:
        """Return the sealed values of an entry.

        Args:
            entry: as stored.
            paths: only these; None means all.

        Raises:
            Tampered: HBK-710 one does not open in this place, or its key is missing without a certificate of erasure.
        """
        keys, fields = unpack(entry.sealed)
        if entry.leaf[-len(NO_KEY) :] != commitment_of(keys):
            raise Tampered("the keys are not those the leaf commits to", position=entry.position, kind="edited")
        wanted = [one for one in fields if paths is None or one[0] in paths]
        known = {number: self._committed(entry, *keys[number]) for number in {number for _, number, _ in wanted}}
        return {
            path: self._opened(entry, path, keys[number][0], known[number], sealed) for path, number, sealed in wanted
        }

    def _committed(self, entry: Entry, key_id: bytes, commitment: bytes) -> DataKey | Lost:
        key = self._key(key_id)
        if key is None or (isinstance(key, DataKey) and key.commitment != commitment):
            why = "a key is another one, or gone without a certificate"
            raise Tampered(why, position=entry.position, kind="edited")
        return key

    def _opened(self, entry: Entry, path: str, key_id: bytes, key: DataKey | Lost, sealed: bytes) -> bytes | Lost:
        if isinstance(key, Lost):
            return key
        try:
            return key.open(sealed, self.aad(entry.stream, entry.version, entry.type, path, key_id))
        except ConfigError:
            raise Tampered("a value does not open in this place", position=entry.position, kind="relocated") from None

    def _key(self, key_id: bytes) -> DataKey | Lost | None:
        while True:
            with self._lock:
                forgotten = self._forgotten
                found = self._open.get(key_id)
                if found is not None:
                    self._open.move_to_end(key_id)
            if found is not None and (not self.shared or self._store.get(KEY, key_id) is not None):
                return found
            loaded = self._loaded(key_id)
            with self._lock:
                if not isinstance(loaded, DataKey):
                    self._open.pop(key_id, None)
                    return loaded
                if forgotten == self._forgotten:  # else it may have been destroyed since: look again
                    self._open[key_id] = loaded
                    while len(self._open) > self._cached:
                        self._open.popitem(last=False)
                    return loaded

    def _loaded(self, key_id: bytes) -> DataKey | Lost | None:
        """Return a key from the store; that it was destroyed is asked first, and again when it is not there."""
        row = None
        lost = self._lost(key_id)
        if lost is None:
            row = self._store.get(KEY, key_id)
            lost = self._lost(key_id) if row is None else None
        return DataKey.unwrap(row.value[_HEAD:], self._tenant_key()) if row is not None else lost

    def _lost(self, key_id: bytes) -> Lost | None:
        row = self._store.get(ERASED, key_id)
        certificate = row.value if row is not None else self._certificate(key_id)
        return None if certificate is None else Lost(key_id.hex(), certificate)

    def _certificate(self, key_id: bytes) -> bytes | None:
        """Return the certificate that a log has of the end of a key."""
        found = (one.certificate(key_id) for one in self._evidence.values())
        return next((one for one in found if one is not None), None)

    # erasing

    def erasing(self, subject: str) -> Erasing:
        """Return what has to be written, in one commit with its certificate, to destroy all keys of a subject.

        Raises:
            UnknownSubject: HBK-717 nothing of it is kept.
        """
        name = self.subject_row(subject)
        owner = self._store.get(SUBJECT, name)
        if owner is None or not owner.value:
            raise UnknownSubject("nothing of this subject is kept")
        rows = [(one, self._store.get(KEY, one)) for one in _ids(owner.value)]
        unwrapped = {one: DataKey.unwrap(row.value[_HEAD:], self._tenant_key()) for one, row in rows if row is not None}
        deletes = [Delete(KEY, one, row.revision) for one, row in rows if row is not None]
        return Erasing(
            tuple((one.hex(), key.commitment.hex()) for one, key in unwrapped.items()),
            tuple(unwrapped),
            (Delete(SUBJECT, name, owner.revision), *deletes),
        )

    def forget(self, key_ids: Iterable[bytes]) -> None:
        """Drop keys from memory."""
        gone = frozenset(key_ids)
        with self._lock:
            self._forgotten += 1
            for one in gone:
                self._open.pop(one, None)
            for subject in [subject for subject, live in self._live.items() if live.id in gone]:
                del self._live[subject]

    def forget_all(self) -> None:
        """Drop every key from memory, as after a write that failed."""
        with self._lock:
            self._forgotten += 1
            self._open.clear()
            self._live.clear()

    # legal hold

    def hold(self, subject: str, reason: str) -> Put:
        """Return the row that forbids erasing a subject."""
        return Put(HOLD, self.subject_row(subject), reason.encode())

    def lift(self, subject: str) -> Delete:
        """Return the removal of that row."""
        return Delete(HOLD, self.subject_row(subject))

    def held(self, subject: str) -> str:
        """Return why a subject may not be erased, by its row or by a log that is watched; empty when it may."""
        row = self._store.get(HOLD, self.subject_row(subject))
        if row is not None:
            return row.value.decode()
        mark = self.hold_mark(subject)
        return next(filter(None, (one.held(mark) for one in self._evidence.values())), "")

    def hold_mark(self, subject: str) -> bytes:
        """Return what stands for a subject in the record of holds: no row has it, and nobody without the keyring."""
        return self._keyring.mac(Purpose.SUBJECT, parts(self.subject_row(subject), b"hold"))

    def __repr__(self) -> str:
        return "SubjectKeys()"


def _ids(value: bytes) -> tuple[bytes, ...]:
    return tuple(value[at : at + KEY_ID_BYTES] for at in range(0, len(value), KEY_ID_BYTES))


class Sealing:
    """Seals the values of one write. `rows` belongs into that write; call `done` once it is durable."""

    def __init__(self, keys: SubjectKeys) -> None:
        self._keys = keys
        self._forgotten = keys.forgotten
        self._nonces = keys.nonces()
        self._used: dict[str, Live] = {}
        self._changed: set[str] = set()
        self._rows: dict[tuple[str, bytes], Put | Check] = {}

    @property
    def rows(self) -> Sequence[Put | Check]:
        """Keys that were made, and leases that were extended."""
        return tuple(self._rows.values())

    def done(self) -> None:
        """The write is durable: what was made may be used from now on."""
        for subject in self._changed:  # each change raised the row's revision by one
            self._used[subject].revision += 1
        self._keys.made(self._used, self._forgotten)

    def seal(self, private: Sequence[Private], stream: str, version: int, kind: str) -> tuple[bytes, bytes]:
        """Return the sealed part of an entry and its key commitment.

        Raises:
            UnknownSubject: HBK-717 a value is nobody's.
        """
        place = self._keys.place(stream, version)
        pairs: list[tuple[bytes, bytes]] = []
        fields: list[tuple[str, int, bytes]] = []
        for one in private:
            live = self._live(one.subject)
            if live.pair not in pairs:
                pairs.append(live.pair)
            aad = place + field(one.path, kind) + live.part
            fields.append((one.path, pairs.index(live.pair), live.key.seal(one.value, aad, next(self._nonces))))
        return pack((pairs, fields)), live.commitment if len(pairs) == 1 else commitment_of(pairs)

    def _live(self, subject: str) -> Live:
        live = self._used.get(subject)
        if live is None:
            found = self._keys.live(subject)
            live = self._used[subject] = found.copy() if found else self._made(subject)
            if self._keys.shared and subject not in self._changed:
                self._rows[KEY, live.id] = Check(KEY, live.id, live.revision)
        if live.left <= 0:
            live = self._used[subject] = self._extended(subject, live)
        live.left -= 1
        return live

    def _extended(self, subject: str, live: Live) -> Live:
        """Take the next lease of a key, or make another key when its budget is used up."""
        if live.leased + self._keys.lease > self._keys.budget:
            return self._made(subject)
        live.leased += self._keys.lease
        live.left += self._keys.lease
        self._put(subject, live)
        return live

    def _made(self, subject: str) -> Live:
        key_id, key = self._keys.fresh()
        live = Live(key_id, key, self._keys.lease, self._keys.lease, 0)
        name = self._keys.subject_row(subject)
        pending = self._rows.get((SUBJECT, name))
        if isinstance(pending, Put):  # a second key within one write
            self._rows[SUBJECT, name] = Put(SUBJECT, name, key_id + pending.value, expected=pending.expected)
        else:
            earlier = self._keys.key_ids(subject)
            # What was there is expected to be there still: the row has as many revisions as the subject had keys.
            self._rows[SUBJECT, name] = Put(SUBJECT, name, b"".join((key_id, *earlier)), expected=len(earlier))
        self._put(subject, live)
        return live

    def _put(self, subject: str, live: Live) -> None:
        self._rows[KEY, live.id] = Put(KEY, live.id, self._keys.row_of(live), expected=live.revision)
        self._changed.add(subject)
