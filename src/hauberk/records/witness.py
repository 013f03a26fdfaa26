"""The witness: it has seen the head of a log, and cosigns the next one only if that is the same log, grown.

Implements `add-checkpoint` and what monitors read, of c2sp.org/tlog-witness; `sign-subtree`, which is optional, is not
offered. `records.witness_wire` has the wire form. The answer is a cosignature by each key of the witness, or a status
that says what is wrong: 400 malformed, or the old size is above that of the checkpoint; 404 no such log; 403 not signed
by it; 409 the old size is not the size cosigned last; 422 the one tree did not grow into the other. `decide` is that
rule and touches nothing.

What was cosigned is replaced in the store by comparing revisions, and is durable before a signature leaves: of two
requests at once that do not fit together one is cosigned, and the other meets what the first left behind.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.ports import Store
from hauberk.crypto.cosignature import CosignerKey
from hauberk.crypto.merkle import EMPTY_ROOT, verify_consistency
from hauberk.crypto.note import (
    Checkpoint,
    Note,
    Signature,
    Verifier,
    parse_checkpoint,
    parse_note,
    signed_by,
)
from hauberk.errors import Conflict, RecordsError
from hauberk.records.log_policy import read_log_key
from hauberk.records.watchlist import Seen, Watchlist
from hauberk.records.witness_wire import SIZE_TYPE, Answer, Request, parse_request

CLOCK_STEP = 5.0  # seconds a clock may go back: the last time stands. Beyond it the clock is wrong, or was
_ATTEMPTS = 16  # each one lost to somebody who got further
_log_key = lru_cache(maxsize=4096)(read_log_key)  # what a request is verified with
_log = logging.getLogger("hauberk.witness")


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


class Witness(Watchlist):
    """Cosigns the checkpoints of the logs it knows. Thread-safe; several processes may share its store.

    The store decides how durable its memory is: `adapters.sqlite` commits with `synchronous=FULL`.

    Args:
        store: its watchlist; stays open.
        keys: of the witness, one signature line each.
        clock: of the times in cosignatures.

    Raises:
        RecordsError: HBK-711 no key.
    """

    def __init__(self, store: Store, keys: Sequence[CosignerKey], *, clock: Clock = SYSTEM_CLOCK) -> None:
        if not keys:
            raise RecordsError("HBK-711", "a witness needs a key")
        super().__init__(store, [key.verifier for key in keys])
        self.vkeys = tuple(key.verifier for key in keys)
        self._keys = tuple(keys)
        self._clock = clock

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
        keys = self.keys_of(checkpoint.origin)[0]
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
            seen, revision = self.seen(log)
            refusal = decide(request, checkpoint, seen)
            if refusal is not None:
                lied = seen is not None and checkpoint.size == seen.size and checkpoint.root != seen.root
                if lied and self.keep(log, note):
                    _log.error("two trees of one size are signed by %r", checkpoint.origin)
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
            self.remember(log, new, revision)
        except Conflict:
            return None
        return Answer(200, lines.encode())

    def _repeated(self, note: Note, seen: Seen) -> str:
        """Return the lines that all the keys made of this very text before; empty when they did not."""
        made = parse_note(seen.note)
        own = {(key.name, key.public.key_id) for key in self._keys}
        lines = [signature.line() for signature in made.signatures if (signature.name, signature.key_id) in own]
        return "".join(lines) if made.text == note.text and len(lines) == len(own) else ""


def _signatures(note: Note, keys: Sequence[Verifier]) -> Iterator[Signature]:
    """Yield one verified signature of each key that signed the note.

    Raises:
        RecordsError: HBK-711 a line under the name and id of one of these keys does not verify.
    """
    for key in keys:
        if signed_by(note, key) is not None:
            yield next(one for one in note.signatures if (one.name, one.key_id) == (key.name, key.key_id))
