"""Durable cursors: how far a named subscription has come, in one row.

A cursor moves forwards only and belongs to one subscription at a time: a newer one of the same name takes it over, and
the older one cannot move it any more. Moves that come while one is being written are written together.
"""

import threading
from concurrent.futures import Future

import msgspec

from hauberk.core.ports import Put, Store
from hauberk.errors import Conflict, HauberkError, RecordsError
from hauberk.records.inbox import promise
from hauberk.records.ledger import Ledger
from hauberk.records.sealed import parts

SPACE = "cursor"
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
        RecordsError: HBK-703, HBK-706 the row cannot be read or taken over.
    """

    def __init__(self, ledger: Ledger, store: Store, owner: str, name: str, start: int) -> None:
        self._ledger = ledger
        self._key = parts(owner.encode("utf-8", "surrogatepass"), name.encode("utf-8", "surrogatepass"))
        self._lock = threading.Lock()  # guards everything below
        self._waiting: list[Future[None]] = []
        self._flying = False
        self._revision, self.position, self._turn = self._taken_over(store, start)
        self._wanted = self.position

    def _taken_over(self, store: Store, start: int) -> tuple[int, int, int]:
        """Read the row, and write it again under the next number, so that an older subscription loses it."""
        while True:
            row = store.get(SPACE, self._key)
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
        with self._lock:
            if error is None:
                self._revision += 1
                self.position = position
            again = self._flying = bool(self._waiting)
        for one in waiting:
            if error is None:
                one.set_result(None)
            else:
                one.set_exception(_told(error))
        if again:
            self._send()


def _told(error: BaseException) -> HauberkError:
    if isinstance(error, Conflict):
        return Conflict("another subscription of this name has taken over", what="cursor")
    return error if isinstance(error, HauberkError) else RecordsError("HBK-703", "the cursor could not be written")
