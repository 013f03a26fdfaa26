"""What every store checks before it writes: expectations of a `Write`, in one place so that engines cannot differ."""

from collections.abc import Sequence

from hauberk.core.event import Entry
from hauberk.core.ports import ANY, Append, Check, Delete, Head, Put
from hauberk.errors import Conflict


def check_append(append: Append, found: Head) -> None:
    """Refuse a batch whose head is not the one its writer saw.

    Raises:
        Conflict: with `found`, the size that is there.
    """
    if append.expected != found.size or append.head.epoch < found.epoch:
        raise Conflict("the log's head has moved", what="head", log=append.log, found=found.size, epoch=found.epoch)
    if append.head.size != append.expected + len(append.entries):
        raise Conflict("the batch does not lead to its head", what="head", log=append.log, found=found.size)
    if [entry.position for entry in append.entries] != list(range(append.expected, append.head.size)):
        raise Conflict("the positions of the batch are not dense", what="head", log=append.log, found=found.size)


def check_row(row: Put | Delete | Check, revision: int) -> None:
    """Refuse a row whose revision is not the expected one; `revision` is 0 when it is absent.

    Raises:
        Conflict: with `found`, the revision that is there.
    """
    if row.expected not in {ANY, revision}:
        raise Conflict("the row has changed", what="row", space=row.space, found=revision)


def check_restored(entries: Sequence[Entry], found: Head) -> None:
    """Refuse to put back what was never below the head.

    Raises:
        Conflict: with `found`, the size that is there.
    """
    if any(not 0 <= entry.position < found.size for entry in entries):
        raise Conflict("only what was in the log is put back", what="head", found=found.size)
