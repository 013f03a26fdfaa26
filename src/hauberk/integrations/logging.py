"""The audit log behind `logging`: what an application already says, recorded and provable.

```
logging.getLogger("shop.access").addHandler(AuditSink(runtime.audit))
log.warning("refund of order %s refused", order, extra={"user": user, "resource": f"/orders/{order}"})
```

Nothing is formatted into lines: level, logger, message, arguments and `extra` become the details of one entry each,
bounded and without secrets, see `records.details`. `user`, `session`, `address`, `resource`, `action`, `outcome`,
`reason` and `correlation` in `extra` become what they are in `AuditLog.record`, so people appear as pseudonyms. Of an
error it keeps the classes and functions it went through, and nothing it says. The record itself is not changed, so
other handlers see what was logged.
"""

import logging
import re
from collections.abc import Mapping

from hauberk.integrations.sink import PATIENCE, Fields, Sink, is_own, told
from hauberk.records.audit import AuditLog
from hauberk.records.secrets import SECRET, secret_name

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_PLACE = re.compile(r"%(?:\(([^)]*)\))?[#0 +-]*[0-9]*(?:\.[0-9]+)?([a-zA-Z%])")
_BEFORE = re.compile(
    r"([\w-]+)[\"'\]]?\s*(?:[:=]|is)?\s*[\"']?\Z"
)  # a name, and perhaps what says that a value follows
_SHOWN = frozenset("sra")  # conversions whose place may take any text


class AuditSink(logging.Handler):
    """Records log messages in the audit log. Thread-safe; it has no lock, so no thread keeps another one waiting.

    A log call through it never raises and never recurses; `sink.counts` tells what became of the messages. While the
    queue is full, callers wait; put a `logging.handlers.QueueHandler` in front where an event loop must not.

    Args:
        audit: the audit log; stays open when the handler closes.
        level: of messages that are recorded, as for every handler.
        wanted: what has to be true before the caller goes on: `async` or `receipt`.
        patience: seconds a caller waits at most.
    """

    def __init__(
        self,
        audit: AuditLog,
        level: int | str = logging.NOTSET,
        *,
        wanted: str = "async",
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(level)
        self.sink = Sink(audit, level=wanted, patience=patience)

    def createLock(self) -> None:  # noqa: N802  # logging's name
        """Have none: while one thread waits here for the ledger, the ledger's own thread may have something to say."""
        self.lock = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what our own loggers say, then do as every handler."""
        if is_own(record.name):
            self.sink.counts.add("own")
            return False
        return super().filter(record)

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record that passes the filters."""
        passed: object = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)  # filters may exchange it
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Record it."""
        self.sink.put(lambda: {**_facts(record), **_said(record)}, lambda: {**_facts(record), **_unsaid(record)})

    def flush(self) -> None:
        """Wait until what was taken is durable, for as long as callers would wait."""
        self.sink.flush(self.sink.patience)

    def close(self) -> None:
        """Flush, and take no more. The audit log stays open."""
        self.flush()
        super().close()


def _facts(record: logging.LogRecord) -> Fields:
    """Return what is known without showing any object of the application."""
    facts: Fields = {"logger": record.name, "severity": record.levelname}
    if record.funcName:
        facts["at"] = f"{record.module}.{record.funcName}:{record.lineno}"
    if record.exc_info:
        facts["error"] = told(record.exc_info[1])
    return facts


def _said(record: logging.LogRecord) -> Fields:
    """Return the message, its arguments, and what came along as `extra`."""
    extra = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    args = _hidden(str(record.msg), record.args)
    said: Fields = {"message": str(record.msg) % args if args else str(record.msg)}
    if record.args:
        said["args"] = args
    return {**said, **extra}


def _unsaid(record: logging.LogRecord) -> Fields:
    """Return what is left when the message cannot be put together."""
    return {"template": record.msg if isinstance(record.msg, str) else type(record.msg).__name__, "unformatted": True}


def _hidden(template: str, args: "tuple[object, ...] | Mapping[str, object] | None") -> object:
    """Return the arguments without those that stand under, or just behind, the name of a secret."""
    if isinstance(args, Mapping):
        return {name: SECRET if secret_name(str(name)) else value for name, value in args.items()}
    if not args or "*" in template:
        return args
    places = [place for place in _PLACE.finditer(template) if place[2] != "%"]
    return tuple(
        SECRET if place is not None and _is_secret(template, place) else value
        for place, value in zip([*places, *[None] * len(args)], args, strict=False)
    )


def _is_secret(template: str, place: re.Match[str]) -> bool:
    before = _BEFORE.search(template[: place.start()])
    return place[2] in _SHOWN and before is not None and secret_name(before[1])
