"""Starting again after a database was lost or put back: a new epoch, and both histories named for everybody to see.

A log must never sign two histories. When the database is older than what was signed, what was signed cannot be carried
on; but the entries that are left can. The next epoch has the same entries and a name of its own in checkpoints
(`LOG/epoch-N`), so no proof of the one is taken for a proof of the other. Its first entry, `ledger.recovered` of stream
`/records/epochs`, holds the checkpoint that was found, the high-water mark, and which positions are lost.
"""

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Event
from hauberk.core.ids import uuid7
from hauberk.core.ports import Mark, Store
from hauberk.crypto.signing import SigningKey
from hauberk.errors import ConfigError, RecordsError
from hauberk.records.heads import origin_of
from hauberk.records.job import Job, encoded
from hauberk.records.mark import check_mark, read_mark
from hauberk.records.sequence import Sequence

RECOVERED = "ledger.recovered"
STREAM = "/records/epochs"


class Recovery(msgspec.Struct, frozen=True):
    """What a new epoch begins with.

    Args:
        origin: its name in checkpoints.
        found: signed note of the head in the database, empty when there was none.
        known: signed note of the high-water mark, empty when there was none.
        lost: the first and the last position that are gone, or None where nothing is known to be.
        checkpoint: signed note of the new epoch.
    """

    origin: str
    found: str
    known: str
    lost: tuple[int, int] | None
    checkpoint: str


def recover(
    store: Store,
    signer: SigningKey,
    log: str,
    mark: Mark,
    *,
    actor: str,
    known: str = "",
    clock: Clock = SYSTEM_CLOCK,
) -> Recovery:
    """Begin a new epoch of a log that is older than its high-water mark.

    Args:
        store: where what is left of it lives; nobody else may write it meanwhile.
        signer: the log's key.
        log: its name in the store.
        mark: raised to the new epoch's head.
        actor: who decides this.
        known: a signed checkpoint that the database does not hold, such as a witness has; by default the mark.
        clock: time source.

    Raises:
        ConfigError: HBK-906 nothing is wrong, so there is nothing to recover from.
        RecordsError: HBK-711 `known` is not signed by this log.
        Tampered: HBK-710 what is left is not the log's own.
    """
    end = Sequence(store, log, signer, keys=None, producer=None, clock=clock)
    if known:
        read_mark(known, signer.public)
    known = known or mark.read()
    try:
        check_mark(store, log, end.head, known, signer.public)
    except RecordsError:
        pass
    else:
        raise ConfigError("HBK-906", "the log is not older than its high-water mark: nothing has to be recovered")
    found, epoch = end.head.checkpoint.decode(), end.head.epoch + 1
    lost = _lost(known, signer, end.head.size)
    now = clock.time_ns()
    data: dict[str, object] = {"found": found, "known": known, "lost": lost, "epoch": epoch}
    event = Event(id=uuid7(now_ns=now), type=RECOVERED, stream=STREAM, time_ns=now, actor=actor, data=data)
    step = end.next([Job((event,), encoded((event,)))], {}, epoch=epoch)
    store.commit(step.write)
    end.took(step)
    note = end.head.checkpoint.decode()
    mark.write(note)
    return Recovery(origin_of(log, epoch), found, known, lost, note)


def _lost(known: str, signer: SigningKey, size: int) -> tuple[int, int] | None:
    try:
        last = read_mark(known, signer.public).size - 1
    except RecordsError:
        return None
    return (size, last) if last >= size else None
