"""Heads of a log as stored: the name of an epoch in checkpoints, and what the log's key says of the tree.

The checkpoints of epoch 0 bear the log's own name, those of a later one `LOG/epoch-N`.
"""

import re

from hauberk.core.ports import Head
from hauberk.crypto.merkle import Frontier
from hauberk.crypto.note import verify_checkpoint
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import RecordsError, Tampered

_EPOCH = re.compile(r"(.+)/epoch-([1-9][0-9]{0,17})\Z", re.DOTALL)


def origin_of(log: str, epoch: int) -> str:
    """Return the name in checkpoints of a log's epoch: the log's own for 0, else with `/epoch-N` behind it."""
    return f"{log}/epoch-{epoch}" if epoch else log


def split_name(name: str) -> tuple[str, int | None]:
    """Return the log's own name and the epoch, if a name ends in one."""
    found = _EPOCH.match(name)
    return (found[1], int(found[2])) if found else (name, None)


def age(head: Head) -> tuple[int, int]:
    """Return what orders the heads of one log."""
    return head.epoch, head.size


def signed_frontier(log: str, head: Head, key: VerifyKey) -> Frontier:
    """Return the frontier of a stored head, once it is known to be signed.

    Raises:
        Tampered: HBK-710 the checkpoint is not signed with this key, or is not of this head.
    """
    try:
        frontier = Frontier.decode(head.size, head.frontier)
        if head.size:
            text = head.checkpoint.decode("utf-8", "replace")
            signed = verify_checkpoint(text, origin_of(log, head.epoch), key)
    except RecordsError as error:
        raise Tampered("the stored checkpoint is not ours", position=head.size, kind="re-signed") from error
    if head.size and (signed.size, signed.root) != (head.size, frontier.root()):
        at = min(signed.size, head.size)
        raise Tampered("the stored head does not fit its checkpoint", position=at, kind="rolled-back")
    return frontier
