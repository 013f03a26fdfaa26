"""Folding a flood of equal refusals into exact counts, so that an attacker can neither fill the disk nor slow others.

Within each second, the first `rate` refusals of one actor for one reason get an entry of their own. The rest are
counted; the counts are written as one entry every 100 ms at most, and whoever waits for one of the counted refusals is
answered once the entry that counts it is durable. So acknowledged still means recorded, and the sums are exact.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Event, Receipt
from hauberk.core.ids import uuid7
from hauberk.core.ports import Draft, Recorder
from hauberk.errors import HauberkError
from hauberk.records.inbox import promise

RATE = 10  # entries of their own per second and key; enough to see a mistake in detail
INTERVAL = 0.1  # seconds between two writes of counts; also the longest a counted caller waits for his answer
MAX_KEYS = 4096  # keys per second; the rest share one, so that made-up keys cannot grow memory
MAX_INCIDENTS = 100  # ids kept in one entry of counts, so that a caller who quotes one is found; 2 KiB at most
FOLDED = ".folded"
_OTHERS = ("*", "*", "*", "")

_Key = tuple[str, str, str, str]


class _Fold:
    """What is being counted under one key."""

    __slots__ = ("first", "future", "last", "count", "incidents")  # noqa: RUF023  # in the order of time

    def __init__(self, first: Event) -> None:
        self.first = first
        self.last = first.time_ns
        self.count = 0
        self.incidents: list[str] = []  # what callers were told, the first MAX_INCIDENTS of them
        self.future: Future[Receipt] = promise()  # many wait for it: none of them may cancel it for the others


class Folder:
    """A recorder in front of a recorder. Thread-safe.

    Args:
        inner: where entries go; closed with this one.
        rate: refusals per second and key that get an entry of their own.
        clock: which second it is.
        interval: seconds between two writes of counts.
    """

    def __init__(
        self, inner: Recorder, *, rate: int = RATE, clock: Clock = SYSTEM_CLOCK, interval: float = INTERVAL
    ) -> None:
        self._inner = inner
        self._rate = rate
        self._clock = clock
        self._interval = interval
        self._lock = threading.Lock()  # guards _second, _seen and _folds
        self._second = 0
        self._seen: dict[_Key, int] = {}
        self._folds: dict[_Key, _Fold] = {}
        self._wake = threading.Event()
        self._closed = threading.Event()  # set under _lock, so that nothing is counted after the last flush
        self._thread = threading.Thread(target=self._run, name="folding", daemon=True)
        self._thread.start()

    def submit(self, event: Event) -> "Future[Receipt]":
        """Take an event; see `core.ports.Recorder`."""
        if event.outcome != "deny":
            return self._inner.submit(event)
        fold = self._count(event)
        return self._inner.submit(event) if fold is None else fold.future

    def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
        """Take an event without waiting; see `core.ports.Recorder`."""
        if not isinstance(event, Event) or event.outcome != "deny":
            return self._inner.offer(event)
        return self._inner.offer(event) if self._count(event) is None else None

    def _count(self, event: Event) -> _Fold | None:
        """Return the fold that counts this event, or None when it gets an entry of its own."""
        key = (event.type, event.actor or event.address, event.code, event.rule)
        second = int(self._clock.time())
        with self._lock:
            if self._closed.is_set():
                return None
            if second != self._second:
                self._second = second
                self._seen.clear()
            if key not in self._seen and len(self._seen) >= MAX_KEYS:
                key = _OTHERS
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            if seen <= self._rate:
                return None
            fold = self._folds.get(key)
            if fold is None:
                fold = self._folds[key] = _Fold(event)
            fold.count += 1
            if event.incident and len(fold.incidents) < MAX_INCIDENTS:
                fold.incidents.append(event.incident)
            fold.last = event.time_ns
        self._wake.set()
        return fold

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._closed.wait(self._interval)
            self._wake.clear()
            self.flush()

    def flush(self) -> None:
        """Write what has been counted so far."""
        with self._lock:
            folds, self._folds = self._folds, {}
        for key, fold in folds.items():
            _settle(self._inner.submit(_counted(key, fold)), fold.future)

    def close(self, timeout: float = 10.0) -> None:
        """Write the last counts, then close the recorder behind."""
        with self._lock:
            self._closed.set()
        self._wake.set()
        self._thread.join(timeout)
        self.flush()
        self._inner.close(timeout)


def _counted(key: _Key, fold: _Fold) -> Event:
    first = fold.first
    data: dict[str, object] = {"count": fold.count, "first": first.time_ns, "last": fold.last}
    if fold.incidents:
        data["incidents"] = fold.incidents
    changes: dict[str, object] = {"id": uuid7(), "type": first.type + FOLDED, "data": data, "incident": ""}
    if key == _OTHERS:
        changes.update(type="denied" + FOLDED, actor="*", address="", code="", rule="", digest="")
    return msgspec.structs.replace(first, **changes)


def _settle(written: "Future[Receipt]", waiting: "Future[Receipt]") -> None:
    def copy(finished: "Future[Receipt]") -> None:
        error = finished.exception()
        if error is None:
            waiting.set_result(finished.result())
        else:
            waiting.set_exception(error)

    written.add_done_callback(copy)


def after(future: "Future[Receipt]", call: Callable[[Receipt | HauberkError], None]) -> None:
    """Call `call` with the receipt, or with the error, once there is one; from the recorder's thread."""

    def done(finished: "Future[Receipt]") -> None:
        error = finished.exception()
        if isinstance(error, HauberkError):
            call(error)
        elif error is None:
            call(finished.result())

    future.add_done_callback(done)
