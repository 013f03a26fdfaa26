"""The in-process bus: one bounded queue and one thread per subscription."""

import logging
import queue
import threading
from collections.abc import Callable

QUEUE = 10_000  # messages per subscription; beyond it the oldest is dropped, as at-most-once allows
_log = logging.getLogger("hauberk.bus")


def matches(pattern: str, subject: str) -> bool:
    """Tell whether `subject` fits `pattern`: `*` is one token, a final `>` the non-empty rest."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(want in {"*", have} for want, have in zip(wanted, given, strict=True))


class _Subscription:
    """One subscriber's queue and thread."""

    def __init__(self, bus: "LocalBus", pattern: str, deliver: Callable[[str, bytes], None]) -> None:
        self._bus = bus
        self.pattern = pattern
        self._deliver = deliver
        self._queue: queue.Queue[tuple[str, bytes] | None] = queue.Queue(QUEUE)
        self._closed = False
        self._reported: set[str] = set()  # what was said about this subscriber already
        self._thread = threading.Thread(target=self._run, name=f"bus {pattern}", daemon=True)
        self._thread.start()

    def put(self, message: tuple[str, bytes] | None) -> None:
        while True:
            try:
                return self._queue.put_nowait(message)
            except queue.Full:
                self._drop()

    def _drop(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return
        self.report("is slow and lost a message")

    def report(self, what: str) -> None:
        """Say something about this subscriber, once: a flood of messages must not become a flood of lines."""
        if what not in self._reported:
            self._reported.add(what)
            _log.warning("a subscriber of %s %s", self.pattern, what)

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            if self._closed:
                return
            with _Contained(self):
                self._deliver(*message)

    def close(self) -> None:
        """Stop delivery and wait for the one in progress, unless it is the caller itself."""
        self._closed = True
        self._bus.forget(self)
        self.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()


class _Contained:
    """The boundary to a subscriber's own code: whatever it raises costs it that message and nothing else."""

    def __init__(self, subscription: _Subscription) -> None:
        self._subscription = subscription

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> bool:
        """Report an exception, and end it unless the interpreter itself wants to stop."""
        if kind is None:
            return False
        self._subscription.report(f"raised {kind.__name__}")
        return issubclass(kind, Exception)


class LocalBus:
    """Implements `core.ports.Bus` within one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _subscriptions; held while queueing, so order per subject is kept
        self._subscriptions: list[_Subscription] = []

    def publish(self, subject: str, data: bytes) -> None:
        """Hand `data` to all present subscribers of `subject`."""
        with self._lock:
            for subscription in self._subscriptions:
                if matches(subscription.pattern, subject):
                    subscription.put((subject, data))

    def subscribe(self, pattern: str, deliver: Callable[[str, bytes], None]) -> _Subscription:
        """Call `deliver(subject, data)` from one thread until closed."""
        subscription = _Subscription(self, pattern, deliver)
        with self._lock:
            self._subscriptions.append(subscription)
        return subscription

    def forget(self, subscription: _Subscription) -> None:
        """Remove a subscription; called by its own `close`."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    def close(self) -> None:
        """Close every subscription."""
        for subscription in list(self._subscriptions):
            subscription.close()
