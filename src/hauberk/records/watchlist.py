"""What a witness remembers: whose checkpoints it takes, how far each log had got, and what proves that one lied.

All of it is rows of a store: the keys of a log by its origin, what was cosigned last by SHA-256 of the origin, and
evidence by that and SHA-256 of the text. A log whose key is taken away keeps the other two, so that putting the key
back opens no door to an older tree.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256

import msgspec

from hauberk.core.ports import ABSENT_ROW, ANY, Put, Store, Write
from hauberk.crypto.cosignature import MAX_NAME_BYTES
from hauberk.crypto.note import Note, decode_vkey
from hauberk.errors import ConfigError, RecordsError
from hauberk.records.log_policy import read_log_key

MAX_EVIDENCE = 16  # checkpoints kept per log that contradict what was cosigned; one is proof enough
_SEEN = "witness"  # SHA-256 of the origin -> Seen
_LOGS = "witness-log"  # origin -> verifier keys
_EVIDENCE = "witness-evidence"  # SHA-256 of the origin, then of the text -> the note
_HASH = re.compile(r"[0-9a-f]{64}\Z")


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """What a witness remembers of one log.

    Args:
        size: of the tree cosigned last.
        root: its root.
        time: of that cosignature, in seconds since the epoch.
        note: the checkpoint with the signatures of the log that were verified, and those of the witness.
    """

    size: int
    root: bytes
    time: int
    note: str


class Watched(msgspec.Struct, frozen=True):
    """One log that a witness knows.

    Args:
        origin: its name.
        keys: whose signature it takes.
        size: cosigned last; 0 when nothing was.
        time: of that, in seconds since the epoch; 0 when nothing was.
        evidence: requests kept that contradict what was cosigned.
    """

    origin: str
    keys: tuple[str, ...]
    size: int
    time: int
    evidence: int


class Watchlist:
    """The logs of a witness. Thread-safe; a command may change it while a witness runs on the same store.

    Args:
        store: where it is; stays open.
        own: verifier keys of the witness itself.
    """

    def __init__(self, store: Store, own: Collection[str] = ()) -> None:
        self._store = store
        self._own = frozenset(decode_vkey(vkey)[2] for vkey in own)

    def add_log(self, vkey: str, origin: str = "", *, replace: bool = False) -> str:
        """Cosign for a log from now on.

        Args:
            vkey: the log's key.
            origin: first line of its checkpoints, where that is not the name of the key.
            replace: the log has changed its key: this one takes the place of those it had.

        Returns:
            The origin.

        Raises:
            RecordsError: HBK-711 not a key, not an origin, or a key of this witness: its own cosignatures would then
                stand for the word of the log.
            ConfigError: HBK-906 a log of this name is known under another key. Two logs must not share a name: one
                would look like a fork of the other.
        """
        vkey, public = vkey.strip(), decode_vkey(vkey)[2]
        name = origin or read_log_key(vkey).name
        if not (name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES):
            raise RecordsError("HBK-711", "not the origin of a log")
        if public in self._own:
            raise RecordsError("HBK-711", "this is a key of the witness itself")
        keys, revision = self.keys_of(name)
        if keys and vkey not in keys and not replace:
            raise ConfigError("HBK-906", "a log of this name is known under another key", origin=name)
        if vkey not in keys or (replace and len(keys) > 1):
            self._commit(_LOGS, name.encode(), msgspec.msgpack.encode([vkey]), revision)
        return name

    def knows(self, origin: str) -> bool:
        """Tell whether a log of this name was ever added or cosigned."""
        return self.keys_of(origin)[1] != ABSENT_ROW or self.seen(sha256(origin.encode()).digest())[0] is not None

    def remove_key(self, vkey: str, origin: str = "") -> None:
        """Take no signature of this key any more. What was cosigned stays remembered.

        Raises:
            RecordsError: HBK-711 not a key, HBK-707 not one of that log.
        """
        vkey = vkey.strip()
        name = origin or read_log_key(vkey).name
        keys, revision = self.keys_of(name)
        if vkey not in keys:
            raise RecordsError("HBK-707", "the witness does not know this key", origin=name)
        self._commit(_LOGS, name.encode(), msgspec.msgpack.encode([key for key in keys if key != vkey]), revision)

    def logs(self) -> Iterator[Watched]:
        """Yield every log the witness knows, by origin."""
        after = b""
        while rows := list(self._store.scan(_LOGS, after=after)):
            after = rows[-1].key
            for row in rows:
                yield self._watched(row.key.decode(), tuple(msgspec.msgpack.decode(row.value, type=list[str])))

    def _watched(self, origin: str, keys: tuple[str, ...]) -> Watched:
        log = sha256(origin.encode()).digest()
        seen, _ = self.seen(log)
        evidence = sum(1 for _ in self._store.scan(_EVIDENCE, log))
        return Watched(origin, keys, seen.size if seen else 0, seen.time if seen else 0, evidence)

    def evidence(self, origin: str) -> Iterator[str]:
        """Yield signed checkpoints that contradict what was cosigned: each of them proves that the log lied."""
        return (row.value.decode() for row in self._store.scan(_EVIDENCE, sha256(origin.encode()).digest()))

    def checkpoint(self, hashed: str) -> str:
        """Return the checkpoint cosigned last.

        Args:
            hashed: SHA-256 of the origin in lower-case hex.

        Raises:
            RecordsError: HBK-707 nothing was cosigned for such a log.
        """
        seen = self.seen(bytes.fromhex(hashed))[0] if _HASH.match(hashed) else None
        if seen is None:
            raise RecordsError("HBK-707", "nothing was cosigned for this log")
        return seen.note

    def accept_clock(self, origin: str) -> None:
        """Forget the time of the last cosignature, after a clock that was ahead has been set right.

        Raises:
            RecordsError: HBK-707 nothing was cosigned for this log.
            Conflict: a cosignature was made at the same time.
        """
        log = sha256(origin.encode()).digest()
        seen, revision = self.seen(log)
        if seen is None:
            raise RecordsError("HBK-707", "nothing was cosigned for this log", origin=origin)
        self.remember(log, msgspec.structs.replace(seen, time=0), revision)

    def seen(self, log: bytes) -> tuple[Seen | None, int]:
        """Return what was cosigned last for the SHA-256 of an origin, and the revision of that."""
        row = self._store.get(_SEEN, log)
        return (None, ABSENT_ROW) if row is None else (msgspec.msgpack.decode(row.value, type=Seen), row.revision)

    def remember(self, log: bytes, seen: Seen, revision: int) -> None:
        """Replace what was cosigned last; durable when this returns.

        Raises:
            Conflict: it is no more what it was at that revision.
        """
        self._commit(_SEEN, log, msgspec.msgpack.encode(seen), revision)

    def keep(self, log: bytes, note: Note) -> bool:
        """Keep a checkpoint that contradicts what was cosigned, and tell whether it is the first such one."""
        key = log + sha256(note.text.encode()).digest()
        kept = [row.key for row in self._store.scan(_EVIDENCE, log)]
        if key not in kept and len(kept) < MAX_EVIDENCE:
            self._commit(_EVIDENCE, key, note.encode().encode(), ANY)
        return not kept

    def keys_of(self, origin: str) -> tuple[Sequence[str], int]:
        """Return the verifier keys of a log, and the revision of that; none when it is not known."""
        row = self._store.get(_LOGS, origin.encode())
        return ((), ABSENT_ROW) if row is None else (msgspec.msgpack.decode(row.value, type=list[str]), row.revision)

    def _commit(self, space: str, key: bytes, value: bytes, revision: int) -> None:
        self._store.commit(Write(rows=[Put(space, key, value, expected=revision)]))
