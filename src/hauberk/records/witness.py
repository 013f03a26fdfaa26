"""The witness: it has seen the head of a log, and cosigns the next one only if that is the same log, grown.

Implements `add-checkpoint` and what monitors read, of c2sp.org/tlog-witness; `sign-subtree`, which is optional, is not
offered. `records.witness_wire` has the wire form. The answer is a cosignature by each key of the witness, or a status
that says what is wrong: 400 malformed, or the old size is above that of the checkpoint; 404 no such log; 403 not signed
by it; 409 the old size is not the size cosigned last; 422 the one tree did not grow into the other. `decide` is that
rule and touches nothing.

What was cosigned is replaced in the store by comparing revisions, and is durable before a signature leaves: of two
requests at once that do not fit together one is cosigned, and the other meets what the first left behind. What a
witness remembers of a log is one row. A log whose key is taken away keeps it, so that putting the key back opens no
door to an older tree.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.ports import ABSENT_ROW, ANY, Put, Store, Write
from hauberk.crypto.cosignature import MAX_NAME_BYTES, CosignerKey
from hauberk.crypto.merkle import EMPTY_ROOT, verify_consistency
from hauberk.crypto.note import (
    Checkpoint,
    Note,
    Signature,
    Verifier,
    decode_vkey,
    parse_checkpoint,
    parse_note,
    signed_by,
)
from hauberk.errors import Conflict, RecordsError
from hauberk.records.log_policy import read_log_key
from hauberk.records.witness_wire import SIZE_TYPE, Answer, Request, parse_request

CLOCK_STEP = 5.0  # seconds a clock may go back: the last time stands. Beyond it the clock is wrong, or was
MAX_EVIDENCE = 16  # checkpoints kept per log that contradict what was cosigned; one is proof enough
_ATTEMPTS = 16  # each one lost to somebody who got further
_SEEN = "witness"  # SHA-256 of the origin -> Seen
_LOGS = "witness-log"  # origin -> verifier keys
_EVIDENCE = "witness-evidence"  # SHA-256 of the origin, then of the text -> the note
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_log_key = lru_cache(maxsize=4096)(read_log_key)  # what a request is verified with
_log = logging.getLogger("hauberk.witness")


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


def _no(status: int, why: str) -> Answer:
    return Answer(status, why.encode() + b"\n")


def decide(request: Request, checkpoint: Checkpoint, seen: Seen | None) -> Answer | None:
    """Return why a checkpoint is not cosigned, or None when it is to be. The log's signature was verified before.

    Args:
        request: old size and proof.
        checkpoint: what its note says.
        seen: what was cosigned last, None for nothing.
    """
    known = 0 if seen is None else seen.size
    if request.old > checkpoint.size:
        return _no(400, "the old size is above that of the checkpoint")
    if request.old != known:
        return Answer(409, b"%d\n" % known, SIZE_TYPE)
    try:
        _check_grown(request, checkpoint, EMPTY_ROOT if seen is None else seen.root)
    except RecordsError as error:
        return _no(422, error.detail)
    return None


def _check_grown(request: Request, checkpoint: Checkpoint, root: bytes) -> None:
    """Check that the tree with this root, of the old size, is the beginning of the new one.

    Raises:
        RecordsError: HBK-712.
    """
    if request.old:
        verify_consistency(request.old, checkpoint.size, root, checkpoint.root, request.proof)
    elif request.proof:
        raise RecordsError("HBK-712", "the empty tree is consistent with any: there is nothing to prove")
    elif not checkpoint.size and checkpoint.root != EMPTY_ROOT:
        raise RecordsError("HBK-712", "this is not the root of an empty tree")


class Witness:
    """Cosigns the checkpoints of the logs it knows. Thread-safe; several processes may share its store.

    The store decides how durable its memory is: `adapters.sqlite` commits with `synchronous=FULL`.

    Args:
        store: what was cosigned; stays open.
        keys: of the witness, one signature line each.
        clock: of the times in cosignatures.

    Raises:
        RecordsError: HBK-711 no key.
    """

    def __init__(self, store: Store, keys: Sequence[CosignerKey], *, clock: Clock = SYSTEM_CLOCK) -> None:
        if not keys:
            raise RecordsError("HBK-711", "a witness needs a key")
        self._store = store
        self._keys = tuple(keys)
        self._clock = clock

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The verifier keys, for the policies of those who ask."""
        return tuple(key.verifier for key in self._keys)

    def add_log(self, vkey: str, origin: str = "") -> str:
        """Cosign for a log from now on; a second key of the same log counts beside the first.

        Args:
            vkey: the log's key.
            origin: first line of its checkpoints, where that is not the name of the key.

        Returns:
            The origin.

        Raises:
            RecordsError: HBK-711 not a key, not an origin, or a key of this witness: its own cosignatures would then
                stand for the word of the log.
        """
        vkey, public = vkey.strip(), decode_vkey(vkey)[2]
        name = origin or _log_key(vkey).name
        if not (name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES):
            raise RecordsError("HBK-711", "not the origin of a log")
        if any(public == key.public.raw for key in self._keys):
            raise RecordsError("HBK-711", "this is a key of the witness itself")
        keys, revision = self._keys_of(name)
        if vkey not in keys:
            self._commit(_LOGS, name.encode(), msgspec.msgpack.encode([*keys, vkey]), revision)
        return name

    def remove_key(self, vkey: str, origin: str = "") -> None:
        """Take no signature of this key any more. What was cosigned stays remembered.

        Raises:
            RecordsError: HBK-711 not a key, HBK-707 not one of that log.
        """
        vkey = vkey.strip()
        name = origin or _log_key(vkey).name
        keys, revision = self._keys_of(name)
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
        seen, _ = self._seen(log)
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
        seen = self._seen(bytes.fromhex(hashed))[0] if _HASH.match(hashed) else None
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
        seen, revision = self._seen(log)
        if seen is None:
            raise RecordsError("HBK-707", "nothing was cosigned for this log", origin=origin)
        self._commit(_SEEN, log, msgspec.msgpack.encode(msgspec.structs.replace(seen, time=0)), revision)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer a request; with status 200 what it asks for is remembered for good.

        Raises:
            RecordsError: the store failed; nothing was cosigned, or its signature never left.
        """
        try:
            request = parse_request(body)
            note = parse_note(request.note)
            checkpoint = parse_checkpoint(note.text)
        except RecordsError as error:
            return _no(400, error.detail)
        keys = self._keys_of(checkpoint.origin)[0]
        if not keys:
            return _no(404, "the witness does not know this log")
        try:
            signatures = tuple(_signatures(note, [_log_key(key) for key in keys]))
        except RecordsError as error:
            return _no(403, error.detail)
        if not signatures:
            return _no(403, "no signature by a key of this log")
        return self._advance(request, checkpoint, Note(note.text, signatures))

    def _advance(self, request: Request, checkpoint: Checkpoint, note: Note) -> Answer:
        """Decide on what is remembered now, and cosign if nobody else got further meanwhile."""
        log = sha256(checkpoint.origin.encode()).digest()
        for _ in range(_ATTEMPTS):
            seen, revision = self._seen(log)
            refusal = decide(request, checkpoint, seen)
            if refusal is not None:
                if seen is not None and checkpoint.size == seen.size and checkpoint.root != seen.root:
                    self._keep(log, note)
                return refusal
            time, last = int(self._clock.time()), 0 if seen is None else seen.time
            if time < last - CLOCK_STEP:
                _log.error("the clock is %d s behind the last cosignature for %r", last - time, checkpoint.origin)
                return _no(503, "the clock of the witness is behind")
            answer = self._cosign(log, checkpoint, note, max(time, last, 1), seen, revision)
            if answer is not None:
                return answer
        return _no(503, "too many requests for this log at once")

    def _cosign(  # noqa: PLR0917  # what was decided, in one place
        self, log: bytes, checkpoint: Checkpoint, note: Note, time: int, seen: Seen | None, revision: int
    ) -> Answer | None:
        """Remember, then return the signatures; None when somebody else wrote first."""
        if seen is not None and seen.time == time and (lines := self._repeated(note, seen)):
            return Answer(200, lines.encode())  # the same again within a second costs neither a signature nor a write
        lines = "".join(key.cosign(note.text, time) for key in self._keys)
        new = Seen(checkpoint.size, checkpoint.root, time, note.encode() + lines)
        try:
            self._commit(_SEEN, log, msgspec.msgpack.encode(new), revision)
        except Conflict:
            return None
        return Answer(200, lines.encode())

    def _repeated(self, note: Note, seen: Seen) -> str:
        """Return the lines that all the keys made of this very text before; empty when they did not."""
        made = parse_note(seen.note)
        own = {(key.name, key.public.key_id) for key in self._keys}
        lines = [signature.line() for signature in made.signatures if (signature.name, signature.key_id) in own]
        return "".join(lines) if made.text == note.text and len(lines) == len(own) else ""

    def _keep(self, log: bytes, note: Note) -> None:
        """Keep what proves that the log signed two trees of one size."""
        key = log + sha256(note.text.encode()).digest()
        kept = [row.key for row in self._store.scan(_EVIDENCE, log)]
        if key not in kept and len(kept) < MAX_EVIDENCE:
            self._commit(_EVIDENCE, key, note.encode().encode(), ANY)
            _log.error("a log signed two trees of one size: %r", note.text.split("\n")[0])

    def _seen(self, log: bytes) -> tuple[Seen | None, int]:
        row = self._store.get(_SEEN, log)
        return (None, ABSENT_ROW) if row is None else (msgspec.msgpack.decode(row.value, type=Seen), row.revision)

    def _keys_of(self, origin: str) -> tuple[Sequence[str], int]:
        row = self._store.get(_LOGS, origin.encode())
        return ((), ABSENT_ROW) if row is None else (msgspec.msgpack.decode(row.value, type=list[str]), row.revision)

    def _commit(self, space: str, key: bytes, value: bytes, revision: int) -> None:
        self._store.commit(Write(rows=[Put(space, key, value, expected=revision)]))


def _signatures(note: Note, keys: Sequence[Verifier]) -> Iterator[Signature]:
    """Yield one verified signature of each key that signed the note.

    Raises:
        RecordsError: HBK-711 a line under the name and id of one of these keys does not verify.
    """
    for key in keys:
        if signed_by(note, key) is not None:
            yield next(one for one in note.signatures if (one.name, one.key_id) == (key.name, key.key_id))
