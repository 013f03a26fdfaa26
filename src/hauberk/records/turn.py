"""Entries that one turn of an event loop asks receipts for: one write, and one wake-up for all who wait.

With a thousand tasks waiting, a future and a call across threads for each would cost more than the writing itself.
"""

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from hauberk.core.event import Event, Receipt
from hauberk.records.inbox import chained
from hauberk.records.pending import Pending

MAX_EVENTS = 1000
S = TypeVar("S")

Append = Callable[[Sequence[Event]], "Future[list[Receipt]]"]


class Turn:
    """The entries of one turn.

    Args:
        loop: whose turn it is.
        append: writes them, in order, all or none.
        event: the first.
    """

    __slots__ = ("_append", "_events", "_lock", "_sent", "loop", "settled", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, append: Append, event: Event) -> None:
        self.loop = loop
        self.settled = False  # this and the next are touched by the loop's thread alone
        self.waiting: list[tuple[asyncio.Future[Receipt], int]] = []
        self._append = append
        self._lock = threading.Lock()  # guards what follows
        self._events = [event]
        self._sent: Future[list[Receipt]] | None = None

    def add(self, event: Event) -> int | None:
        """Return which of them it is now, or None when they are on their way already, or as many as there may be."""
        with self._lock:
            if self._sent is not None or len(self._events) >= MAX_EVENTS:
                return None
            self._events.append(event)
            return len(self._events) - 1

    def send(self) -> "Future[list[Receipt]]":
        """Write them, unless that is done, and return the future of their receipts. From any thread."""
        with self._lock:
            if self._sent is not None:
                return self._sent
            sent = self._sent = self._append(self._events)
        sent.add_done_callback(self._tell)
        return sent

    def _tell(self, _finished: "Future[list[Receipt]]") -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits in it any more
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        """Tell whoever still waits, in their own thread."""
        self.settled = True
        finished = self.send()
        error = finished.exception()
        receipts = finished.result() if error is None else []
        for future, index in self.waiting:
            if future.done():  # its task was cancelled
                continue
            if error is None:
                future.set_result(receipts[index])
            else:
                future.set_exception(error)


class InTurn(Pending[Receipt]):
    """One of the entries of a turn."""

    __slots__ = ("_index", "_turn")

    def __init__(self, turn: Turn, index: int) -> None:
        self._turn = turn
        self._index = index

    def result(self, timeout: float | None = None) -> Receipt:
        """Write the turn at once and wait; see `Pending.result`."""
        return self._turn.send().result(timeout)[self._index]

    def done(self) -> bool:
        """Tell whether there is an outcome."""
        return self._turn.send().done()

    def then(self, change: Callable[[Receipt], S]) -> Pending[S]:
        """See `Pending.then`."""
        index = self._index
        return Pending(chained(self._turn.send(), lambda receipts: change(receipts[index])))

    def __await__(self) -> Generator[object, None, Receipt]:
        turn, index = self._turn, self._index
        loop = asyncio.get_running_loop()
        if loop is not turn.loop:
            return (yield from asyncio.wrap_future(turn.send()).__await__())[index]
        if turn.settled:
            return turn.send().result()[index]
        future: asyncio.Future[Receipt] = loop.create_future()
        turn.waiting.append((future, index))
        return (yield from future)


class Taken(Pending[Receipt]):
    """What is in a queue: there is nothing to wait for."""

    __slots__ = ("_receipt",)

    def __init__(self, receipt: Receipt) -> None:
        self._receipt = receipt

    def result(self, timeout: float | None = None) -> Receipt:
        """Return the receipt."""
        del timeout
        return self._receipt

    def done(self) -> bool:
        """Yes."""
        return True

    def then(self, change: Callable[[Receipt], S]) -> Pending[S]:
        """See `Pending.then`."""
        return Pending.of(self._receipt).then(change)

    def __await__(self) -> Generator[object, None, Receipt]:
        yield from ()
        return self._receipt
