"""What a log says about itself: which entries were pruned, where an epoch ended, who its producers are.

An entry that is missing is taken for pruned only if a later entry of the log says so; an epoch is another one only from
the entry on that names both histories.
"""

import msgspec

from hauberk.core.event import Entry
from hauberk.core.ports import Store
from hauberk.errors import RecordsError
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
    minimum: int


class _Recovery(msgspec.Struct):
    found: str
    known: str
    lost: tuple[int, int] | None
    epoch: int


def claimed_minimum(store: Store, log: str) -> int:
    """Return the position below which entries may be missing, as far as the store says; the walk has yet to meet it.

    Raises:
        RecordsError: the store failed.
    """
    minimum, above = 0, 0
    while page := list(store.stream(log, RETENTION, above=above, limit=_PAGE)):
        minimum = max(minimum, *(_minimum(entry) for entry in page if entry.type == PRUNED), 0)
        above = page[-1].version
    return minimum


def _minimum(entry: Entry) -> int:
    """Return what an entry allows to be missing: nothing at or behind itself."""
    try:
        found = msgspec.json.decode(entry.public, type=_Pruning).minimum
    except (msgspec.DecodeError, TypeError, RecursionError):
        return 0
    return found if found <= entry.position else 0


class Declared:
    """Collects what entries declare while they are walked.

    Args:
        named: the log.
        epoch: that the walk begins in.
    """

    def __init__(self, named: Named, epoch: int = 0) -> None:
        self.epoch = epoch
        self.minimum = 0
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
        if entry.type == PRUNED and entry.stream == RETENTION:
            self.minimum = max(self.minimum, _minimum(entry))
        elif entry.type == RECOVERED and entry.stream == EPOCHS:
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
