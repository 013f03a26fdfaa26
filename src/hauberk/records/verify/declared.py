"""What a log says about itself: which entries were pruned, where an epoch ended, who its producers are.

An entry that is missing is taken for pruned only if a later entry of the log says so of its very position; an epoch is
another one only from the entry on that names both histories.
"""

from contextlib import suppress

import msgspec

from hauberk.core.event import Entry
from hauberk.core.ports import Store
from hauberk.errors import RecordsError
from hauberk.records.positions import Positions
from hauberk.records.streams import RETENTION
from hauberk.records.verify.anchors import Named
from hauberk.records.verify.report import Kind, Recovered, tampered

EPOCHS = "/records/epochs"
PRODUCERS = "/records/producers"
PRUNED = "ledger.pruned"
RECOVERED = "ledger.recovered"
CERTIFIED = "producer.certified"
STREAMS = frozenset({EPOCHS, PRODUCERS, RETENTION})  # of entries that say such things
_PAGE = 1_000


class _Pruning(msgspec.Struct):
    first: int
    bitmaps: tuple[str, ...]


class _Recovery(msgspec.Struct):
    found: str
    known: str
    lost: tuple[int, int] | None
    epoch: int


def claimed_gone(store: Store, log: str) -> Positions:
    """Return where entries may be missing, as far as the store says; the walk has yet to meet what says so.

    Raises:
        RecordsError: the store failed.
    """
    gone, above = Positions(), 0
    while page := list(store.stream(log, RETENTION, above=above, limit=_PAGE)):
        for entry in page:
            _take_pruned(entry, gone)
        above = page[-1].version
    return gone


def _take_pruned(entry: Entry, gone: Positions) -> None:
    """Add what an entry says was pruned: nothing at or behind itself, and nothing when it cannot be read."""
    if entry.type != PRUNED or entry.stream != RETENTION:
        return
    with suppress(msgspec.DecodeError, TypeError, ValueError, RecursionError):
        found = msgspec.json.decode(entry.public, type=_Pruning)
        gone.take(found.first, found.bitmaps, below=entry.position)


class Declared:
    """Collects what entries declare while they are walked.

    Args:
        named: the log.
        epoch: that the walk begins in.
    """

    def __init__(self, named: Named, epoch: int = 0) -> None:
        self.epoch = epoch
        self.gone = Positions()
        self.recoveries: list[Recovered] = []
        self._named = named

    def take(self, entry: Entry, root: bytes) -> None:
        """Take an entry of one of `STREAMS`, itself verified.

        Args:
            entry: the entry.
            root: of the tree before it.

        Raises:
            Tampered: HBK-710 it declares a recovery that was none.
        """
        _take_pruned(entry, self.gone)
        if entry.type == RECOVERED and entry.stream == EPOCHS:
            self._recovered(entry, root)

    def _recovered(self, entry: Entry, root: bytes) -> None:
        at = entry.position
        try:
            said = msgspec.json.decode(entry.public, type=_Recovery)
        except (msgspec.DecodeError, RecursionError):
            raise tampered(Kind.EPOCH, "the entry that declares a recovery cannot be read", at) from None
        if said.epoch != self.epoch + 1 or not self._found(said.found, at, root) or said.lost != self._lost(said, at):
            raise tampered(Kind.EPOCH, "what the log declares about a recovery is not so", at)
        self.epoch = said.epoch
        self.recoveries.append(Recovered(said.epoch, at, said.lost))

    def _found(self, note: str, at: int, root: bytes) -> bool:
        """Tell whether the head that was found is the one of the entries before."""
        if not note:
            return at == 0
        try:
            found, epoch = self._named.signed(note)
        except RecordsError:
            return False
        return (found.size, found.root, epoch) == (at, root, self.epoch)

    def _lost(self, said: _Recovery, at: int) -> tuple[int, int] | None:
        """Return what is lost if the mark of that time is as said; a mark that was gone or another's tells nothing."""
        try:
            last = self._named.signed(said.known)[0].size - 1
        except RecordsError:
            return None
        return (at, last) if last >= at else None

    def left(self, epoch: int, size: int) -> Recovered | None:
        """Return the recovery before which an epoch ended with fewer than `size` leaves."""
        return next((one for one in self.recoveries if one.epoch == epoch + 1 and one.position < size), None)
