"""The audit log behind structlog: a processor that passes every event on as it is, and records a scrubbed copy.

```
structlog.configure(processors=[..., AuditProcessor(runtime.audit), structlog.processors.JSONRenderer()])
log.info("refund refused", user=user, resource=f"/orders/{order}", outcome="denied")
```

It belongs right before the renderer, so that it sees what will be written. `user`, `session`, `address`, `resource`,
`action`, `outcome`, `reason` and `correlation` become what they are in `AuditLog.record`, so people appear as
pseudonyms; everything else becomes details, bounded and without secrets. It needs nothing of structlog itself.
"""

import sys
from collections.abc import MutableMapping
from typing import Any

from hauberk.integrations.sink import PATIENCE, Fields, Sink, is_own, told
from hauberk.records.audit import AuditLog

_BETWEEN = "_"  # keys that begin so are between processors


class AuditProcessor:
    """Records events. Thread-safe; an event through it never fails. `sink.counts` tells what became of them.

    Args:
        audit: the audit log.
        level: what has to be true before the caller goes on: `async` or `receipt`.
        patience: seconds a caller waits at most while the queue is full.
    """

    def __init__(self, audit: AuditLog, *, level: str = "async", patience: float = PATIENCE) -> None:
        self.sink = Sink(audit, level=level, patience=patience)

    def __call__(
        self, _logger: object, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Record a copy and return the very same mapping."""
        name = event_dict.get("logger")
        if isinstance(name, str) and is_own(name):
            self.sink.counts.add("own")
        else:
            self.sink.put(
                lambda: _fields(method_name, event_dict), lambda: {"severity": method_name, "unformatted": True}
            )
        return event_dict


def _fields(method_name: str, event_dict: MutableMapping[str, Any]) -> Fields:
    fields: Fields = {"severity": method_name}
    fields |= {name: value for name, value in event_dict.items() if not str(name).startswith(_BETWEEN)}
    if "event" in fields:
        fields["message"] = str(fields.pop("event"))
    error = _error(fields.pop("exc_info", None))
    if error is not None or "exception" in fields:
        fields.pop("exception", None)  # a traceback as text, with what the error says
        fields["error"] = told(error)
    return fields


def _error(found: object) -> BaseException | None:
    """Return the error of what structlog takes as `exc_info`: one, a triple, or that there is one."""
    if isinstance(found, BaseException):
        return found
    if isinstance(found, tuple) and len(found) == 3 and isinstance(found[1], BaseException):  # noqa: PLR2004  # sys.exc_info()
        return found[1]
    return sys.exc_info()[1] if found else None
