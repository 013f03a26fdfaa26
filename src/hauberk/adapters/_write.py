"""What every store checks before it writes: expectations of a `Write`, in one place so that engines cannot differ."""

from hauberk.core.ports import ANY, Append, Delete, Head, Put
from hauberk.errors import Conflict


def check_append(append: Append, found: Head) -> None:
    """Refuse a batch whose head is not the one its writer saw.

    Raises:
        Conflict: with `found`, the size that is there.
    """
    if append.expected != found.size or append.head.epoch < found.epoch:
        raise Conflict("the log's head has moved", log=append.log, found=found.size, epoch=found.epoch)
    if append.head.size != append.expected + len(append.entries):
        raise Conflict("the batch does not lead to its head", log=append.log, found=found.size)
    if [entry.position for entry in append.entries] != list(range(append.expected, append.head.size)):
        raise Conflict("the positions of the batch are not dense", log=append.log, found=found.size)


def check_row(row: Put | Delete, revision: int) -> None:
    """Refuse a row whose revision is not the expected one; `revision` is 0 when it is absent.

    Raises:
        Conflict: with `found`, the revision that is there.
    """
    if row.expected not in {ANY, revision}:
        raise Conflict("the row has changed", space=row.space, found=revision)
