"""What the ledger says about the keys of people: which were destroyed, and who may not be erased.

Rows say so too, but whoever may write the database deletes a row, or puts an old one back, and no tag tells. The ledger
is numbered and signed: in `/records/erasures` and `/records/holds` each entry has the next version, is in the signed
tree, and is never pruned. What was seen once is remembered as long as the process runs; what is newer is read when
somebody asks.

An entry that was taken away leaves a gap, which is refused here. The last ones of a stream leave none for a process
that had not seen them: that they are missing is found by whoever goes through the whole log, `hauberk ledger verify`.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator

import msgspec

from hauberk.core.event import Entry
from hauberk.core.ports import Store
from hauberk.errors import Tampered
from hauberk.records._encode import Meta
from hauberk.records.streams import ERASURES, HOLDS

ERASED = "records.erased"
SCRUBBED = "records.scrubbed"
HELD = "records.held"
LIFTED = "records.lifted"
PAGE = 1_000  # entries read at once
RECENT = 4_096  # erased keys kept apart until they are worth sorting in
_ID = 16  # bytes of a key id
_RECORD = _ID + 8  # and of the version of its certificate


class _Key(msgspec.Struct, frozen=True):
    id: str


class _Certificate(msgspec.Struct, frozen=True):
    keys: tuple[_Key, ...]


class _Hold(msgspec.Struct, frozen=True):
    subject: str = ""
    reason: str = ""


_certificate = msgspec.json.Decoder(_Certificate).decode
_hold = msgspec.json.Decoder(_Hold).decode


class Destroyed:
    """Versions of certificates by the ids of the keys they destroyed: 24 bytes each, in order, and the recent ones."""

    def __init__(self) -> None:
        self._sorted = b""
        self._recent: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._sorted) // _RECORD + len(self._recent)

    def add(self, key_id: bytes, version: int) -> None:
        """Take note of one."""
        self._recent[key_id] = version
        if len(self._recent) > max(RECENT, len(self._sorted) // _RECORD // 8):
            known = [self._sorted[at : at + _RECORD] for at in range(0, len(self._sorted), _RECORD)]
            fresh = [one + version.to_bytes(8) for one, version in self._recent.items()]
            self._sorted = b"".join(sorted((*known, *fresh)))
            self._recent = {}

    def get(self, key_id: bytes) -> int | None:
        """Return the version of the certificate of a key, None when it was not destroyed."""
        if key_id in self._recent:
            return self._recent[key_id]
        count = len(self._sorted) // _RECORD
        at = bisect_left(range(count), key_id, key=lambda one: self._sorted[one * _RECORD : one * _RECORD + _ID])
        found = self._sorted[at * _RECORD : (at + 1) * _RECORD]
        return int.from_bytes(found[_ID:]) if found[:_ID] == key_id and found else None


class Evidence:
    """What one log says. Thread-safe.

    Args:
        store: where the log is.
        log: its name there.
        check: refuses an entry that is not what was recorded, and returns its meta part.
    """

    def __init__(self, store: Store, log: str, check: Callable[[Entry], Meta]) -> None:
        self.log = log
        self._store = store
        self._check = check
        self._lock = threading.Lock()  # guards everything below
        self._seen = {ERASURES: 0, HOLDS: 0}  # version up to which each stream was read
        self._destroyed = Destroyed()
        self._held: dict[str, int] = {}  # version of the hold by the mark of its subject

    def certificate(self, key_id: bytes) -> bytes | None:
        """Return the event id of the certificate that a key was destroyed, None when there is none.

        Raises:
            Tampered: HBK-710 certificates were taken away or changed.
        """
        self._read(ERASURES)
        with self._lock:
            version = self._destroyed.get(key_id)
        return None if version is None else self._entry(ERASURES, version).id

    def held(self, mark: bytes) -> str:
        """Return why a subject may not be erased, empty when nothing forbids it.

        Args:
            mark: the subject as holds name it; see `SubjectKeys.hold_mark`.

        Raises:
            Tampered: HBK-710 holds were taken away or changed.
        """
        self._read(HOLDS)
        with self._lock:
            version = self._held.get(mark.hex())
        return "" if version is None else _hold(self._entry(HOLDS, version).public).reason or "a legal hold"

    def holds(self) -> int:
        """Return the version up to which holds are known; whoever acts on that expects the stream to have it still."""
        self._read(HOLDS)
        with self._lock:
            return self._seen[HOLDS]

    def _entry(self, stream: str, version: int) -> Entry:
        """Return an entry that was read before.

        Raises:
            Tampered: HBK-710 it is not there any more.
        """
        found = next(self._store.stream(self.log, stream, above=version - 1, limit=1), None)
        if found is None or found.version != version:
            raise Tampered("an entry of the record was taken away", stream=stream, version=version, kind="deleted")
        self._check(found)
        return found

    def _read(self, stream: str) -> None:
        """Read what is newer than what is known."""
        while True:
            found = list(self._store.stream(self.log, stream, above=self._seen[stream], limit=PAGE))
            with self._lock:
                for entry in found:
                    if entry.version > self._seen[stream]:  # else another thread was faster
                        self._take(stream, entry)
            if len(found) < PAGE:
                return

    def _take(self, stream: str, entry: Entry) -> None:
        """Take note of the next entry; called with the lock held."""
        if entry.version != self._seen[stream] + 1:
            raise Tampered(
                "an entry of the record was taken away", stream=stream, version=entry.version, kind="deleted"
            )
        kind = self._check(entry).type
        try:
            if kind == ERASED:
                for key_id in _ids(entry):
                    self._destroyed.add(key_id, entry.version)
            elif kind in {HELD, LIFTED}:
                self._take_hold(kind, _hold(entry.public), entry.version)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Tampered("a record cannot be read", position=entry.position, kind="unreadable") from error
        self._seen[stream] = entry.version

    def _take_hold(self, kind: str, hold: _Hold, version: int) -> None:
        if hold.subject and kind == HELD:
            self._held[hold.subject] = version
        else:
            self._held.pop(hold.subject, None)


def _ids(entry: Entry) -> Iterator[bytes]:
    yield from (bytes.fromhex(one.id) for one in _certificate(entry.public).keys)
