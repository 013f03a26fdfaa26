"""The newest cosigned checkpoint of a log, where readers and other processes find it: one row of the store.

The row is the note itself (space `cosigned`, key: the log's name in the store). Whoever loads it verifies it: it counts
only with the log's signature and a quorum. A newer one replaces an older one, whoever comes last.
"""

import msgspec

from hauberk.core.ports import ABSENT_ROW, Put, Store, Write
from hauberk.crypto.note import Checkpoint, LogKey, parse_checkpoint, parse_note
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import Conflict, RecordsError
from hauberk.records.log_policy import LogPolicy, examine
from hauberk.records.mark import read_mark

SPACE = "cosigned"
_ATTEMPTS = 8  # beside other processes that keep one too


class Cosigned(msgspec.Struct, frozen=True):
    """A checkpoint with a quorum of cosignatures."""

    checkpoint: Checkpoint
    note: str


def load_cosigned(store: Store, log: str, key: VerifyKey, policy: LogPolicy) -> Cosigned | None:
    """Return the cosigned checkpoint that is kept, if the policy holds for it and it is of the log as it is now.

    Args:
        store: where the log lives.
        log: its name there.
        key: its public key.
        policy: whose quorum it takes.
    """
    row, head = store.get(SPACE, log.encode()), store.head(log)
    if row is None or not head.size:
        return None
    try:
        note = row.value.decode()
        origin = read_mark(head.checkpoint.decode(), key).origin
        found = examine(note, policy, logs=[LogKey(origin, key)]).checkpoint
    except (RecordsError, UnicodeDecodeError):
        return None
    return Cosigned(found, note) if found.origin == origin and found.size <= head.size else None


def keep_cosigned(store: Store, log: str, reached: Cosigned) -> None:
    """Keep a cosigned checkpoint, unless a newer one is kept already.

    Raises:
        RecordsError: HBK-703, HBK-706 the store failed.
    """
    for _ in range(_ATTEMPTS):
        row = store.get(SPACE, log.encode())
        if row is not None and _newer(row.value, reached.checkpoint):
            return
        put = Put(SPACE, log.encode(), reached.note.encode(), ABSENT_ROW if row is None else row.revision)
        try:
            store.commit(Write(rows=[put]))
        except Conflict:
            continue
        return


def _newer(kept: bytes, than: Checkpoint) -> bool:
    try:
        found = parse_checkpoint(parse_note(kept.decode()).text)
    except (RecordsError, UnicodeDecodeError):
        return False
    return found.origin == than.origin and found.size > than.size
