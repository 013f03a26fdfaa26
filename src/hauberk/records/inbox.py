"""What waits for a recording thread: a bounded queue that wakes its reader seldom.

Events somebody waits for wake the reader at once. Events nobody waits for may linger a few milliseconds, so that one
commit, or one request to the authority, carries many. Adding one costs an append and two comparisons.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from hauberk.errors import HauberkError

_Item = TypeVar("_Item")
T = TypeVar("T")
S = TypeVar("S")


def promise() -> "Future[Any]":
    """Return a future whose reader may stop waiting, but cannot take the event back: cancelling it does nothing."""
    done: Future[Any] = Future()
    done.set_running_or_notify_cancel()
    return done


def chained(future: "Future[T]", change: Callable[[T], S]) -> "Future[S]":
    """Return a future of what `change` makes of the outcome; errors pass through."""
    changed: Future[S] = promise()

    def settle(finished: "Future[T]") -> None:
        error = finished.exception()
        if error is not None:
            changed.set_exception(error)
            return
        try:
            value = change(finished.result())
        except HauberkError as mistaken:
            changed.set_exception(mistaken)
        else:
            changed.set_result(value)

    future.add_done_callback(settle)
    return changed


class Inbox(Generic[_Item]):
    """Many writers, one reader. Thread-safe.

    Args:
        size: items that may wait.
        linger: seconds that items nobody waits for may stay.
    """

    def __init__(self, size: int, linger: float) -> None:
        self._size = size
        self._linger = linger
        self._items: deque[_Item] = deque()  # appended and popped atomically
        self._some = threading.Event()  # there may be items, or the end has come
        self._urgent = threading.Event()  # somebody waits, or the end has come
        self._lock = threading.Lock()  # guards _closed, and adding to _items
        self._closed = False

    def offer(self, item: _Item) -> bool:
        """Add an item nobody waits for; False when there is no room, or the inbox is closed."""
        with self._lock:
            if self._closed or len(self._items) >= self._size:
                return False
            self._items.append(item)
        if not self._some.is_set():
            self._some.set()
        return True

    def put(self, item: _Item) -> bool:
        """Add an item that somebody waits for; False when the inbox is closed.

        It never waits itself, so an event loop may call it: whoever does waits for the outcome before the next one, so
        the bound is exceeded by the number of those at most.
        """
        with self._lock:  # so that nothing is added after the reader was told that nothing more comes
            if self._closed:
                return False
            self._items.append(item)
        self._urgent.set()
        self._some.set()
        return True

    def take(self, limit: int, weight: Callable[[_Item], int], *, timeout: float | None = None) -> list[_Item] | None:
        """Return what waits, oldest first.

        Args:
            limit: items whose weights together reach this end the batch.
            weight: of an item.
            timeout: seconds after which an empty list is returned.

        Returns:
            None once the inbox is closed and empty.
        """
        if not self._items and not self._closed and not self._some.wait(timeout):
            return []
        if not self._urgent.is_set():
            self._urgent.wait(self._linger)
        self._some.clear()
        self._urgent.clear()
        found: list[_Item] = []
        total = 0
        while self._items and total < limit:
            item = self._items.popleft()
            total += weight(item)
            found.append(item)
        if self._items or self._closed:
            self._some.set()
            self._urgent.set()
        with self._lock:  # read together: nothing is added once it is closed
            ended = self._closed and not self._items
        return None if ended and not found else found

    def close(self) -> None:
        """Let the reader have what waits and then the end."""
        with self._lock:
            self._closed = True
        self._urgent.set()
        self._some.set()
