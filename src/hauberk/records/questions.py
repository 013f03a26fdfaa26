"""Questions under way: each in a thread of its own, which holds up neither whoever asked nor the end of the process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from hauberk.errors import HauberkError, RecordsError
from hauberk.records.inbox import promise

T = TypeVar("T")


class Questions:
    """Those of one asker. Thread-safe.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()  # guards _asked
        self._asked: set[Future[Any]] = set()  # and not answered yet, when one was asked last

    def put(self, ask: Callable[[], T]) -> "Future[T]":
        """Ask; the future holds what comes of it."""
        done: Future[T] = promise()
        with self._lock:
            self._asked = {one for one in self._asked if not one.done()} | {done}
        threading.Thread(target=_run, args=(ask, done), name=self._name, daemon=True).start()
        return done

    def wait(self, timeout: float) -> None:
        """Wait until all that were put are answered, at most so many seconds."""
        with self._lock:
            asked = self._asked
        wait(asked, timeout)

    @property
    def count(self) -> int:
        """How many are under way."""
        with self._lock:
            return sum(not one.done() for one in self._asked)


def _run(ask: Callable[[], T], done: "Future[T]") -> None:
    try:
        done.set_result(ask())
    except HauberkError as error:
        done.set_exception(error)
    finally:
        if not done.done():
            done.set_exception(RecordsError("HBK-706", "the question could not be put"))
