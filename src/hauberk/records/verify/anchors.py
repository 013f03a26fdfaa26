"""Checkpoints from outside the log, which find what the log's own signature cannot.

Whoever has the log's key, or only an old copy of its database, can make a log that is perfect in itself. It takes
something from elsewhere to tell: a checkpoint pinned before, the high-water mark, or the newest checkpoint that a
quorum of witnesses cosigned. All of them have to be of a prefix of the log.
"""

from collections.abc import Sequence

import msgspec

from hauberk.core.ports import Head
from hauberk.crypto.note import Checkpoint, LogKey, verify_checkpoint
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records.heads import origin_of, split_name
from hauberk.records.log_policy import LogPolicy, examine
from hauberk.records.verify.report import Kind, Met, not_cosigned, tampered

_DIFFERS = {
    "checkpoint": (Kind.REWRITTEN, "the log differs from the known checkpoint"),
    "mark": (Kind.REWRITTEN, "the log differs from its high-water mark"),
    "witnesses": (Kind.SPLIT_VIEW, "the log differs from the checkpoint that witnesses cosigned"),
}
_SHORTER = {
    "checkpoint": "the log is shorter than the known checkpoint",
    "mark": "the log is shorter than its high-water mark",
    "witnesses": "the log is shorter than the checkpoint that witnesses cosigned",
}


class Anchors(msgspec.Struct, frozen=True):
    """What the auditor has from elsewhere.

    Args:
        checkpoints: signed notes from before, or from another reader.
        mark: signed note of the high-water mark; None when it is not looked at, empty when it is gone.
        policy: whose quorum of witnesses a checkpoint has to have: one of these, or the log's newest.
        not_before: the newest cosignatures must not be older than this, Unix seconds; 0 for no limit.
    """

    checkpoints: tuple[str, ...] = ()
    mark: str | None = None
    policy: LogPolicy | None = None
    not_before: int = 0


NO_ANCHORS = Anchors()


class Anchor(msgspec.Struct, frozen=True):
    """One checkpoint, its signatures verified.

    Args:
        source: `checkpoint`, `mark` or `witnesses`.
        checkpoint: what was signed.
        epoch: of the log, by its origin.
        cosigned: see `Met`.
    """

    source: str
    checkpoint: Checkpoint
    epoch: int
    cosigned: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Leaves it covers."""
        return self.checkpoint.size

    @property
    def met(self) -> Met:
        """The line of a report."""
        return Met(self.source, self.size, self.cosigned)


class Named(msgspec.Struct, frozen=True):
    """A log and its key.

    Args:
        log: its name in a store, and the origin of its first epoch.
        key: its public key.
        epoch: that the key's text names, or None for any.
    """

    log: str
    key: VerifyKey
    epoch: int | None

    def origin(self, epoch: int) -> str:
        """Return the name in checkpoints of an epoch."""
        return origin_of(self.log, epoch)

    def epoch_of(self, origin: str) -> int:
        """Return the epoch that a checkpoint is of.

        Raises:
            RecordsError: HBK-711 it is of another log.
        """
        if origin == self.log:
            return 0
        log, epoch = split_name(origin)
        if log != self.log or epoch is None:
            raise RecordsError("HBK-711", "the checkpoint is of another log")
        return epoch

    def signed(self, note: str) -> tuple[Checkpoint, int]:
        """Return what a note of any epoch of this log says, and the epoch.

        Raises:
            RecordsError: HBK-711 it is not signed by this log.
        """
        origin = note.partition("\n")[0]
        epoch = self.epoch_of(origin)
        return verify_checkpoint(note, origin, self.key), epoch


def read_anchors(named: Named, anchors: Anchors, head: Head, kept: Sequence[str] = ()) -> list[Anchor]:
    """Return the checkpoints that the log has to agree with, smallest first.

    Args:
        named: the log.
        anchors: as the auditor gave them.
        head: of the log.
        kept: notes that the store keeps, not trusted.

    Raises:
        RecordsError: HBK-711 one is not signed by this log.
        NotCosigned: HBK-720 none has the quorum of the policy, or not a recent one.
        Tampered: HBK-713 the high-water mark is gone.
    """
    found = [_pinned(named, "checkpoint", note) for note in anchors.checkpoints]
    if anchors.mark:
        found.append(_pinned(named, "mark", anchors.mark))
    elif anchors.mark is not None and head.size:
        raise tampered(Kind.ROLLED_BACK, "the high-water mark is gone", head.size)
    if anchors.policy is not None:
        notes = [*anchors.checkpoints, head.checkpoint.decode("utf-8", "replace"), *kept]
        found.append(_witnessed(named, anchors, notes))
    return sorted(found, key=lambda anchor: (anchor.size, anchor.source != "witnesses"))  # theirs says most


def _pinned(named: Named, source: str, note: str) -> Anchor:
    checkpoint, epoch = named.signed(note)
    return Anchor(source, checkpoint, epoch)


def _witnessed(named: Named, anchors: Anchors, notes: Sequence[str]) -> Anchor:
    """Return the newest checkpoint that has the quorum."""
    reached, why = [], "there is none"
    for note in notes:
        try:
            epoch = named.epoch_of(note.partition("\n")[0])
            vouched = examine(note, anchors.policy or LogPolicy(), logs=[LogKey(named.origin(epoch), named.key)])
        except RecordsError as error:
            why = error.detail
            continue
        reached.append(Anchor("witnesses", vouched.checkpoint, epoch, dict(vouched.cosigned)))
    if not reached:
        raise not_cosigned(f"no checkpoint has the policy's quorum of witnesses: {why}")
    newest = max(reached, key=lambda anchor: (anchor.epoch, anchor.size))
    if max(newest.cosigned.values(), default=0) < anchors.not_before:
        raise not_cosigned("the newest checkpoint that has the quorum is older than was asked for")
    return newest


def differing(anchor: Anchor) -> Tampered:
    """Return the finding that the log's tree of that size is another one."""
    kind, why = _DIFFERS[anchor.source]
    return tampered(kind, why, anchor.size - 1, anchor=anchor.source)


def shorter(anchor: Anchor, size: int, declared: int | None = None) -> Tampered:
    """Return the finding that the log does not reach an anchor.

    Args:
        anchor: the checkpoint.
        size: how far the log goes with it.
        declared: position of the entry that says so, if the log was recovered and lost them.
    """
    why = _SHORTER[anchor.source]
    if declared is not None:
        why = f"entries that the {anchor.source} covers were lost before a recovery, as entry {declared} declares"
        return tampered(Kind.ROLLED_BACK, why, declared, anchor=anchor.source, known=anchor.size, declared=declared)
    return tampered(Kind.ROLLED_BACK, why, size, anchor=anchor.source, known=anchor.size)
