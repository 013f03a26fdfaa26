"""What a write returns: one object for coroutines and for everybody else.

`await pending` in a coroutine, `pending.result(timeout)` elsewhere. The write goes on whether or not anybody waits, and
giving up waiting does not take it back.
"""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Generic, TypeVar

from hauberk.errors import HauberkError
from hauberk.records.inbox import chained, promise

T = TypeVar("T")
S = TypeVar("S")


class Pending(Generic[T]):
    """The outcome of a write, once there is one.

    Args:
        future: what resolves with it, from any thread.
    """

    __slots__ = ("_future",)

    def __init__(self, future: "Future[T]") -> None:
        self._future = future

    @classmethod
    def of(cls, value: T) -> "Pending[T]":
        """Return what is known already."""
        future: Future[T] = promise()
        future.set_result(value)
        return cls(future)

    @classmethod
    def failed(cls, error: HauberkError) -> "Pending[T]":
        """Return what has failed already."""
        future: Future[T] = promise()
        future.set_exception(error)
        return cls(future)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the outcome, from a thread that has no event loop running.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            HauberkError: the write failed.
            TimeoutError: there is no outcome yet; the write goes on.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Tell whether there is an outcome."""
        return self._future.done()

    def then(self, change: Callable[[T], S]) -> "Pending[S]":
        """Return what comes of the outcome. `change` runs in the thread that has it, must be quick, and may raise."""
        return Pending(chained(self._future, change))

    def __await__(self) -> Generator[object, None, T]:
        return asyncio.wrap_future(self._future).__await__()

    def __repr__(self) -> str:
        return f"Pending({'done' if self.done() else 'waiting'})"
