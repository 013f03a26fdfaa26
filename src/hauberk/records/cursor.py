"""Durable cursors: how far a named subscription has come, in one row.

A cursor moves forwards only and belongs to one subscription at a time: a newer one of the same name takes it over, and
the older one cannot move it any more. Moves that come while one is being written are written together.
"""

import threading
from concurrent.futures import Future

import msgspec

from hauberk.core.ports import Put, Store
from hauberk.errors import Conflict, HauberkError, Malformed, OutcomeUnknown, RecordsError
from hauberk.records.inbox import promise
from hauberk.records.ledger import Ledger
from hauberk.records.sealed import parts

SPACE = "cursor"
MAX_NAME = 300  # bytes of the name of a subscription
MAX_OWNER = 2_048  # bytes of whose it is; both are the key of a row, and an index has an end
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int]).decode


class Cursor:
    """The position a subscription goes on from. Thread-safe.

    Args:
        ledger: writes the row.
        store: where the row is.
        owner: who subscribes; two of them may use the same name.
        name: of the subscription.
        start: position of the first event when there is no row yet.

    Raises:
        Malformed: HBK-716 no such name, or owner.
        RecordsError: HBK-703, HBK-706 the row cannot be read or taken over.
    """

    def __init__(self, ledger: Ledger, store: Store, owner: str, name: str, start: int) -> None:
        self._ledger = ledger
        self._store = store
        self._key = _key(owner, name)
        self._lock = threading.Lock()  # guards everything below; the revision is that of whoever sends
        self._waiting: list[Future[None]] = []
        self._flying = False
        self._revision, self.position, self._turn = self._taken_over(start)
        self._wanted = self.position

    def _taken_over(self, start: int) -> tuple[int, int, int]:
        """Read the row, and write it again under the next number, so that an older subscription loses it."""
        while True:
            row = self._store.get(SPACE, self._key)
            position, turn = _decode(row.value) if row is not None else (start, 0)
            revision = row.revision if row is not None else 0
            put = Put(SPACE, self._key, _encode((position, turn + 1)), expected=revision)
            try:
                self._ledger.append_batch((), rows=(put,)).result()
            except Conflict:
                continue  # somebody else took it over at the same time
            return revision + 1, position, turn + 1

    def move(self, position: int) -> "Future[None]":
        """Go on from `position` after a restart; the future resolves when that is durable.

        It fails with `Conflict` (HBK-701) when another subscription of this name has taken over.
        """
        done: Future[None] = promise()
        with self._lock:
            self._wanted = max(self._wanted, position)
            self._waiting.append(done)
            if self._flying:
                return done
            self._flying = True
        self._send()
        return done

    def _send(self) -> None:
        with self._lock:
            position, waiting = self._wanted, self._waiting
            self._waiting = []
            put = Put(SPACE, self._key, _encode((position, self._turn)), expected=self._revision)
        written = self._ledger.append_batch((), rows=(put,))
        written.add_done_callback(lambda finished: self._sent(finished.exception(), position, waiting))

    def _sent(self, error: BaseException | None, position: int, waiting: "list[Future[None]]") -> None:
        known = self._revision
        if error is None:
            self._revision += 1
        elif isinstance(error, Conflict | OutcomeUnknown):  # perhaps with what we wrote ourselves
            error = self._found(error, position)
        with self._lock:
            if error is None:
                self.position = position
            elif isinstance(error, Conflict) and self._revision != known:  # the row is ours, as we did not know it
                self._waiting, waiting = [*waiting, *self._waiting], []
            again = self._flying = bool(self._waiting)
        for one in waiting:
            if error is None:
                one.set_result(None)
            else:
                one.set_exception(_told(error))
        if again:
            self._send()

    def _found(self, error: Conflict | OutcomeUnknown, position: int) -> HauberkError | None:
        """Return what became of a write, as the row itself says; None when it was written."""
        try:
            row = self._store.get(SPACE, self._key)
        except RecordsError as failure:
            return error if isinstance(error, OutcomeUnknown) else failure
        at, turn = _decode(row.value) if row is not None else (0, 0)
        if row is None or turn != self._turn:
            return Conflict("the row is somebody else's", what="row")
        self._revision = row.revision
        return None if at >= position else error


def _key(owner: str, name: str) -> bytes:
    """Return the key of the row.

    Raises:
        Malformed: HBK-716.
    """
    whose, which = owner.encode("utf-8", "surrogatepass"), name.encode("utf-8", "surrogatepass")
    if len(which) > MAX_NAME or len(whose) > MAX_OWNER:
        raise Malformed("the name of a subscription is too long", bytes=len(which), most=MAX_NAME)
    return parts(whose, which)


def _told(error: BaseException) -> HauberkError:
    if isinstance(error, Conflict):
        return Conflict("another subscription of this name has taken over", what="cursor")
    return error if isinstance(error, HauberkError) else RecordsError("HBK-703", "the cursor could not be written")
