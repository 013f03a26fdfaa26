"""Erasing a person: the key goes, a certificate stays, and everything that was proven before is still proven.

One write of the ledger deletes the wrapped keys of a subject and records the certificate: the event `records.erased` of
the stream `/records/erasures`, with the ids and commitments of the keys, the reason, and who asked for it. It names the
subject nowhere. After it nothing sealed under those keys can be read by anybody, snapshots and archives among it;
leaves and checkpoints cover ciphertext, so they hold as before. Then caches are dropped, here and over the bus, and the
store overwrites what it deleted.

Certificates and holds are believed as the ledger has them, see `records.evidence`: rows that are deleted or put back
open nothing again, and lift no hold. A hold names its subject by a keyed hash, so that it can be found.

What a certificate cannot do is reach copies elsewhere: backups of the database hold the wrapped keys until they are
deleted, and whatever a reader was shown before is the reader's. It says so. Such a copy together with the keyring opens
what it holds, in a program that does not ask the ledger.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from hauberk.core.decision import Basis, Decision, Layer, Verdict
from hauberk.core.event import Receipt
from hauberk.core.ports import Bus, Check, Delete, Put, Store
from hauberk.errors import Conflict, HauberkError, HeldBack, Malformed, RecordsError
from hauberk.records.evidence import ERASED, HELD, LIFTED, SCRUBBED, Evidence
from hauberk.records.keys import HOLD, KEY_ID_BYTES, SubjectKeys
from hauberk.records.ledger import Ledger, Proof
from hauberk.records.permission import Context, Permission
from hauberk.records.streams import ERASURES, HOLDS

SUBJECTS = "/subjects"  # what policies are asked about
FORGET = "records.erased"  # subject on the bus: ids of destroyed keys, 16 bytes each
MAX_REASON = 1_000  # characters
ATTEMPTS = 5  # while the person's rows are being written by others
COVERS = ("events", "snapshots", "archived segments")  # sealed under the same keys, so they need no list of their own
COPIES = ("backups of the database made before, until they are deleted",)


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """That somebody was erased.

    Args:
        id: of the event in the ledger.
        position: of it.
        time_ns: when, Unix nanoseconds.
        reason: as given.
        keys: hex id and commitment of each key that was destroyed.
        scrubbed: what was deleted has been overwritten wherever the database keeps it; where not, a later `scrub` may.
        copies: what may still hold the keys, out of reach from here.
    """

    id: bytes
    position: int
    time_ns: int
    reason: str
    keys: tuple[tuple[str, str], ...]
    scrubbed: bool
    copies: tuple[str, ...]
    _ledger: Ledger

    def proof(self) -> Proof:
        """Return the proof that the certificate is in the ledger."""
        return self._ledger.proof(self.position)

    def __repr__(self) -> str:
        return f"Certificate(position={self.position}, keys={len(self.keys)}, scrubbed={self.scrubbed})"


class Erasure:
    """Erases, holds and lifts. Every call blocks until it is durable. Thread-safe.

    Args:
        ledger: where certificates go.
        store: where keys are.
        keys: of subjects.
        permission: who may.
        evidence: what the ledger says about keys; watched from now on.
        bus: tells other processes, None when there are none.
        wake: called with the position of each certificate.
        copies: what holds copies of the database here, in words; part of each certificate.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        keys: SubjectKeys,
        permission: Permission,
        evidence: Evidence,
        *,
        bus: Bus | None,
        wake: Callable[[int], None],
        copies: Sequence[str] = COPIES,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._keys = keys
        self._evidence = keys.watch(evidence)
        self._permission = permission
        self._bus = bus
        self._wake = wake
        self._copies = tuple(copies)
        self._subscription = bus.subscribe(FORGET, self._forget) if bus is not None else None

    def erase(self, subject: str, who: Context, reason: str) -> Certificate:
        """Destroy the keys of a subject; see the module.

        Raises:
            Denied: HBK-300.
            HeldBack: HBK-719 with the reason of the legal hold.
            UnknownSubject: HBK-717 nothing of it is kept.
            Tampered: HBK-710 the record of holds was changed.
            Malformed: HBK-716 there is no reason, or it is too long.
            RecordsError: HBK-703, HBK-706 nothing was erased.
        """
        decision = self._permission.enforce(who, "erase", SUBJECTS)
        _check_reason(reason)
        for attempt in range(ATTEMPTS):
            try:
                return self._certified(subject, who, reason, decision)
            except Conflict:  # events of this subject are being written, or a hold just now
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError  # the loop has no other end

    def _refuse_held(self, subject: str, who: Context, decision: Decision) -> None:
        held = self._keys.held(subject)
        if held:
            basis = Basis(decision.basis.digest, decision.basis.revision)
            refused = Decision(Verdict.DENY, Layer.RECORDS, "HBK-719", None, basis, "a legal hold")
            self._permission.record(who, "erase", SUBJECTS, refused).result()
            raise HeldBack("a legal hold forbids it", reason=held)

    def _certified(self, subject: str, who: Context, reason: str, decision: Decision) -> Certificate:
        """Commit the erasure with its certificate, then drop and overwrite what is left of the keys."""
        holds = self._evidence.holds()
        self._refuse_held(subject, who, decision)
        erasing = self._keys.erasing(subject)
        data = {
            "keys": [{"id": key, "commitment": commitment} for key, commitment in erasing.keys],
            "reason": reason,
            "covers": list(COVERS),
            "copies": list(self._copies),
        }
        event = self._permission.event(ERASED, ERASURES, who, data=data)
        event = msgspec.structs.replace(event, digest=decision.basis.digest)
        unheld = Check(HOLD, self._keys.subject_row(subject), 0)
        rows = (*erasing.rows(event.id), unheld)
        receipt = self._ledger.append_batch((event,), expected={HOLDS: holds}, rows=rows).result()[0]
        ids = [bytes.fromhex(key) for key, _ in erasing.keys]
        self._keys.forget(ids)
        if self._bus is not None:
            with suppress(HauberkError):  # the others find out by themselves: a key that is gone opens nothing
                self._bus.publish(FORGET, b"".join(ids))
        position = _position(receipt)
        self._wake(position)
        return Certificate(
            id=event.id, position=position, time_ns=event.time_ns, reason=reason, keys=erasing.keys,
            scrubbed=self._scrubbed(position, who), copies=self._copies, _ledger=self._ledger,
        )  # fmt: skip

    def _scrubbed(self, position: int, who: Context) -> bool:
        """Overwrite what was deleted, and record how that went: a failure here does not undo the erasure."""
        try:
            done = self._store.scrub()
        except RecordsError:
            done = False
        self._ledger.offer(
            self._permission.event(SCRUBBED, ERASURES, who, data={"certificate": position, "scrubbed": done})
        )
        return done

    def _forget(self, _subject: str, ids: bytes) -> None:
        self._keys.forget(ids[at : at + KEY_ID_BYTES] for at in range(0, len(ids), KEY_ID_BYTES))

    def hold(self, subject: str, who: Context, reason: str) -> Receipt:
        """Forbid erasing a subject until the hold is lifted.

        Raises:
            Denied: HBK-300.
            UnknownSubject: HBK-717 the name is empty.
            Malformed: HBK-716 there is no reason, or it is too long.
        """
        _check_reason(reason)
        return self._held(HELD, subject, who, reason, lambda: self._keys.hold(subject, reason))

    def lift(self, subject: str, who: Context, reason: str) -> Receipt:
        """Allow erasing a subject again.

        Raises:
            Denied: HBK-300.
            UnknownSubject: HBK-717 the name is empty.
            Malformed: HBK-716 there is no reason, or it is too long.
        """
        _check_reason(reason)
        return self._held(LIFTED, subject, who, reason, lambda: self._keys.lift(subject))

    def _held(self, kind: str, subject: str, who: Context, reason: str, row: Callable[[], Put | Delete]) -> Receipt:
        decision = self._permission.enforce(who, "hold", SUBJECTS)
        keys = [one.hex() for one in self._keys.key_ids(subject)]
        data = {"subject": self._keys.hold_mark(subject).hex(), "keys": keys, "reason": reason}
        event = self._permission.event(kind, HOLDS, who, data=data)
        event = msgspec.structs.replace(event, digest=decision.basis.digest)
        return self._ledger.append_batch((event,), rows=(row(),)).result()[0]

    def close(self) -> None:
        """Listen to the bus no more."""
        if self._subscription is not None:
            self._subscription.close()


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        raise Malformed("a reason is one line of text", bytes=len(reason))


def _position(receipt: Receipt) -> int:
    if receipt.position is None:
        raise RecordsError("HBK-703", "the certificate is not in the ledger")
    return receipt.position
