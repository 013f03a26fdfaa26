"""What takes log messages into the audit log, whoever made them: the one place where nothing may come back.

A log call must not fail, whatever it is given and whatever the disk does. So everything is caught here, counted, and
told to the logger `hauberk.records`, whose own messages are never taken. A full queue makes the caller wait, for
`patience` seconds at most: the message is in the queue all the same. Nothing is left out without a count.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType

from hauberk.core.event import Receipt
from hauberk.core.principal import Principal
from hauberk.errors import HauberkError
from hauberk.records.audit import AuditLog, Outcome
from hauberk.records.pending import Pending

PATIENCE = 5.0  # seconds a caller waits while the queue is full
MAX_CHAIN = 5  # errors told of one chain of causes
MAX_FRAMES = 20  # functions told of one error, those closest to it
OWN = "hauberk"  # loggers that are never taken: what they say about recording would be recorded for ever
FIELDS = ("user", "session", "address", "resource", "action", "outcome", "reason", "correlation")
_OUTCOMES = frozenset(Outcome)
_CLOSED = "HBK-706"
_GRAVE = frozenset({"error", "critical", "exception", "fatal"})
_log = logging.getLogger("hauberk.records")

Fields = dict[str, object]


class Counts:
    """What became of messages. Thread-safe.

    Attributes:
        taken: recorded, or waiting to be.
        own: left out because they are about recording itself.
        inner: left out because they were made while another one was being taken, in the same thread.
        late: taken, though the caller stopped waiting for the queue.
        lost: could not be recorded; the logger `hauberk.records` says why.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the numbers
        self.taken = self.own = self.inner = self.late = self.lost = 0

    def add(self, name: str) -> int:
        """Count one, and return how many there are."""
        with self._lock:
            count: int = getattr(self, name) + 1
            setattr(self, name, count)
        return count

    def __repr__(self) -> str:
        return f"Counts(taken {self.taken}, own {self.own}, inner {self.inner}, late {self.late}, lost {self.lost})"


class Sink:
    """Takes messages. Thread-safe.

    Args:
        audit: where they go.
        level: what has to be true before the caller goes on; see `records.audit.Level`.
        patience: seconds the caller waits at most.
    """

    def __init__(self, audit: AuditLog, *, level: str = "async", patience: float = PATIENCE) -> None:
        self.counts = Counts()
        self._audit = audit
        self._level = level
        self.patience = patience
        self._busy = threading.local()
        self._durable = 0  # messages that the last flush that succeeded covered, or more

    def put(self, make: Callable[[], Fields], instead: Callable[[], Fields]) -> None:
        """Take a message; never raises.

        Args:
            make: its details and what else is known of it, see `FIELDS`; may fail, since objects may not let
                themselves be shown.
            instead: what can be told without showing anything.
        """
        if getattr(self._busy, "taking", False):
            self.counts.add("inner")
            return
        self._busy.taking = True
        try:
            try:
                fields = make()
            except Exception:  # noqa: BLE001  # whatever an object of the application raises while it is shown
                fields = instead()
            self._wait(self._record(fields))
        except Exception as error:  # noqa: BLE001  # a log call must not fail
            self._lost(error)
        finally:
            self._busy.taking = False

    def _record(self, fields: Fields) -> Pending[Receipt]:
        known = {name: fields.pop(name) for name in FIELDS if isinstance(fields.get(name), str | Principal)}
        if not known.get("outcome") or known["outcome"] not in _OUTCOMES:
            grave = str(fields.get("severity", "")).lower() in _GRAVE or fields.get("error")
            known["outcome"] = "failed" if grave else "ok"
        return self._audit.record("log", level=self._level, details=fields, **known)  # type: ignore[arg-type]  # looked at above

    def _wait(self, pending: Pending[Receipt]) -> None:
        self.counts.add("taken")
        try:
            pending.result(self.patience)
        except TimeoutError:
            self.counts.add("late")

    def _lost(self, error: Exception) -> None:
        count = self.counts.add("lost")
        if count & (count - 1) == 0:  # the first, and ever more seldom
            what = error.code if isinstance(error, HauberkError) else type(error).__name__
            _log.error("%d log messages could not be recorded: %s", count, what)

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until what was taken is durable; never raises.

        A recorder that is closed has written what it had taken, and has told of each entry that it could not write:
        there is nothing to wait for, and nothing to say. So it is when `logging` flushes at the end of the process.
        """
        taken = self.counts.taken
        if taken == self._durable:
            return
        try:
            self._audit.flush(timeout)
        except (HauberkError, TimeoutError) as error:
            if not (isinstance(error, HauberkError) and error.code == _CLOSED):
                _log.warning("log messages may not be durable yet: %s", error)
        else:
            self._durable = taken


def is_own(logger: str) -> bool:
    """Tell whether a logger is one of ours."""
    return logger == OWN or logger.startswith(f"{OWN}.")


def told(error: BaseException | None) -> list[Mapping[str, object]]:
    """Return an error and its causes: names of classes and functions, no values and no text."""
    found: list[Mapping[str, object]] = []
    seen: set[int] = set()
    while error is not None and len(found) < MAX_CHAIN and id(error) not in seen:
        seen.add(id(error))
        one: dict[str, object] = {"type": _qualified(type(error)), "at": _frames(error.__traceback__)}
        if isinstance(error, BaseExceptionGroup):
            one["of"] = [_qualified(type(inner)) for inner in error.exceptions[:MAX_CHAIN]]
        found.append(one)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def _qualified(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _frames(trace: TracebackType | None) -> list[str]:
    found: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}.{code.co_qualname}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found[-MAX_FRAMES:]
