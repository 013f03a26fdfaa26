"""What a verification says: a report of all that was checked, or the first thing that is wrong, and its kind."""

from enum import StrEnum

import msgspec

from hauberk.errors import NotCosigned, Tampered

ROLLED_BACK_CODE = "HBK-713"


class Kind(StrEnum):
    """What was done to a log, as far as what is left of it tells. The words are for programs and stay."""

    EDITED = "edited"  # a part, column or leaf is not the one that was hashed
    DELETED = "deleted"  # an entry is missing, and no pruning on record covers it
    ADDED = "added"  # an entry behind the signed end
    REORDERED = "reordered"  # two entries changed places, or a stream's versions do not follow one another
    RELOCATED = "relocated"  # an entry is at another position, or in another stream
    REPLAYED = "replayed"  # an entry is there once more
    TRUNCATED = "truncated"  # entries at the end are missing
    ROLLED_BACK = "rolled-back"  # the log is shorter than a checkpoint from elsewhere
    RESIGNED = "re-signed"  # the head is signed, but not by the log's key
    WRONG_KEY = "wrong-key"  # the signature is the log's, of another epoch than the key that was given
    REWRITTEN = "rewritten"  # the tree is not the one that a checkpoint was signed for
    SPLIT_VIEW = "split-view"  # witnesses cosigned another tree of this log
    FORGED = "forged-signature"  # a producer's statement does not hold
    UNSIGNED = "unsigned"  # an entry that nobody but the log vouches for, where that is not enough
    EPOCH = "epoch"  # what the log says about a recovery is not so
    TILE = "tile"  # tiles or the frontier, which are derived, differ from the entries
    UNREADABLE = "unreadable"  # it is no entry at all, or the engine cannot read it
    NOT_COSIGNED = "not-cosigned"  # no checkpoint here has the quorum of witnesses


def tampered(kind: Kind, why: str, position: int, **context: object) -> Tampered:
    """Return the finding; its code is HBK-713 where only something kept elsewhere tells."""
    code = ROLLED_BACK_CODE if kind is Kind.ROLLED_BACK else "HBK-710"
    return Tampered(why, code=code, position=position, kind=kind.value, **context)


def not_cosigned(why: str) -> NotCosigned:
    """Return the finding that the quorum of a policy is missing."""
    return NotCosigned(why, position=0, kind=Kind.NOT_COSIGNED.value)


class Met(msgspec.Struct, frozen=True):
    """A checkpoint from elsewhere that the log agrees with.

    Args:
        source: `checkpoint`, `mark` or `witnesses`.
        size: leaves it covers.
        cosigned: when each witness of the policy signed it, Unix seconds, by its name there.
    """

    source: str
    size: int
    cosigned: dict[str, int] = {}


class Recovered(msgspec.Struct, frozen=True):
    """An epoch that began after a recovery, as the log itself declares it.

    Args:
        epoch: its number.
        position: of the entry that declares it.
        lost: first and last position that are gone, or None.
    """

    epoch: int
    position: int
    lost: tuple[int, int] | None


class VerifyReport(msgspec.Struct, frozen=True):
    """What was verified.

    Args:
        origin: the log, as its checkpoint names it.
        size: how many leaves lead to the root.
        root: hex of the root hash.
        streams: how many streams.
        start: entries below this were verified before, and not read again.
        pruned: entries that are not there, as the log declares: nothing but their place in the tree was checked.
        signed: entries covered by a statement of their producer, which holds.
        unsigned: entries that only the log vouches for.
        producers: who made the statements: SPIFFE ids that were verified, else fingerprints.
        speakers: those of them who signed entries that are no service's own, such as `/streams/...`.
        anchors: checkpoints from elsewhere that the log agrees with.
        recoveries: epochs that began after a recovery.
    """

    origin: str
    size: int
    root: str
    streams: int
    start: int = 0
    pruned: int = 0
    signed: int = 0
    unsigned: int = 0
    producers: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    anchors: tuple[Met, ...] = ()
    recoveries: tuple[Recovered, ...] = ()
