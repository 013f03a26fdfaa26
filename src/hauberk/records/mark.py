"""The high-water mark: a log whose database is older than what was signed before refuses to sign.

Whoever puts an old copy of the database back, validly signed as it is, would otherwise make the log sign a second
history beside the first. The mark is the last checkpoint that was signed, kept outside the database: the stored log has
to hold at least as many leaves, and its tree of that size has to have the mark's root.
"""

from hauberk.core.ports import Head, Store
from hauberk.crypto.note import Checkpoint, verify_checkpoint
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records._tiles import StoredTree


def read_mark(note: str, key: VerifyKey) -> Checkpoint:
    """Return the checkpoint of a mark, whatever epoch it is of.

    Raises:
        RecordsError: HBK-711 it was not signed with this key.
    """
    return verify_checkpoint(note, note.partition("\n")[0], key)


def check_mark(store: Store, log: str, head: Head, note: str, key: VerifyKey) -> None:
    """Refuse a log that is older than its high-water mark, or not the one that was signed.

    Args:
        store: where the log lives.
        log: its name in the store.
        head: as stored, its checkpoint verified.
        note: the mark; empty when there is none.
        key: of the log.

    Raises:
        Tampered: HBK-713 with `position`, the number of leaves that are left.
    """
    if not note:
        if head.size:
            raise Tampered("the high-water mark is gone", code="HBK-713", position=head.size, kind="rolled-back")
        return
    try:
        known = read_mark(note, key)
    except RecordsError:
        raise Tampered("the high-water mark is of another log", code="HBK-713", position=head.size) from None
    if known.size > head.size:
        raise Tampered(
            "the database is older than the high-water mark", code="HBK-713", position=head.size, known=known.size,
            kind="rolled-back",
        )  # fmt: skip
    if known.size and StoredTree(store, log).root(known.size) != known.root:
        raise Tampered("the log is not the one that was signed", code="HBK-713", position=0, kind="rewritten")
