"""The audit log beside what people write themselves: a `RotatingFileHandler` with a JSON formatter.

1,024 coroutines in one event loop, each writing one entry after the other. Ours goes on once its entry is durable:
users and addresses hidden under a key, secrets taken out of details, hashed into the tree, signed, on disk. The other
one hides them with a salted hash and goes on once the operating system has the line; it never syncs. `async` is ours
behind its bounded queue, until everything is durable.
"""

import asyncio
import hashlib
import json
import logging
import logging.handlers
import tempfile
import time
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import uvloop

from bench.disk import fdatasyncs
from bench.harness import Progress, Row, at_least, interleave
from hauberk import Runtime
from hauberk.core.config import load
from hauberk.records.audit import AuditLog

CALLERS = 1_024
EACH = 20  # entries per caller and round
ROUNDS = 9
BAR = 2.0
_SALT = "pepper-2024"
_numbers = count()


def _entry(caller: int, number: int) -> dict[str, Any]:
    return {
        "user": f"user-{caller}",
        "resource": f"/orders/{number}",
        "action": "read",
        "outcome": "ok",
        "address": "10.0.0.1",
        "details": {"fields": ["name", "email"], "count": number},
    }


class _Json(logging.Formatter):
    """One JSON object a line, users and addresses hashed."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = record.__dict__["audit"]
        return json.dumps({
            "time": self.formatTime(record), "level": record.levelname, "logger": record.name,
            "event": record.getMessage(), **entry, "user": _hashed(entry["user"]), "address": _hashed(entry["address"]),
        })  # fmt: skip


def _hashed(value: str) -> str:
    return hashlib.sha256((value + _SALT).encode()).hexdigest()[:16]


def _everybody(one: Callable[[int], Coroutine[Any, Any, None]]) -> float:
    """Return entries per second of all callers together."""

    async def everybody() -> float:
        started = time.perf_counter()
        await asyncio.gather(*map(one, range(CALLERS)))
        return time.perf_counter() - started

    return CALLERS * EACH / uvloop.run(everybody())


def _lines(directory: Path) -> Callable[[], float]:
    def case() -> float:
        file = directory / f"audit-{next(_numbers)}.log"
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=100 << 20, backupCount=50)
        handler.setFormatter(_Json())
        logger = logging.Logger("audit")  # noqa: LOG001  # one of its own
        logger.addHandler(handler)

        async def one(caller: int) -> None:
            for number in range(EACH):
                logger.info("data_access", extra={"audit": _entry(caller, number)})
                await asyncio.sleep(0)  # a caller among others

        try:
            return _everybody(one)
        finally:
            handler.close()

    return case


def _ours(directory: Path, level: str) -> Callable[[], float]:
    def case() -> float:
        runtime = Runtime.embedded(directory / f"state-{next(_numbers)}", policies=(), config=load(environ={}))
        audit = runtime.audit

        async def one(caller: int) -> None:
            for number in range(EACH):
                await audit.access(**_entry(caller, number), level=level)

        try:
            return _everybody(one) if level == "receipt" else _flushed(audit, one)
        finally:
            runtime.close()

    return case


def _flushed(audit: AuditLog, one: Callable[[int], Coroutine[Any, Any, None]]) -> float:
    """Return entries per second until the last of them is durable."""
    started = time.perf_counter()
    _everybody(one)
    audit.flush(60)
    return CALLERS * EACH / (time.perf_counter() - started)


def run(progress: Progress) -> list[Row]:
    """Measure durable receipts, and the queue, beside lines that are not durable."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        progress("auditing beside a rotating file")
        syncs = fdatasyncs(directory)
        found = interleave(
            {
                "receipt": _ours(directory, "receipt"),
                "async": _ours(directory, "async"),
                "lines": _lines(directory),
            },
            ROUNDS,
        )
    receipts, queued = found["receipt"].over(found["lines"]), found["async"].over(found["lines"])
    return [
        at_least(
            "audit.receipt", receipts.median, BAR, note=f"durable, beside lines that are not; {receipts.note('x')}"
        ),
        Row("audit.async", queued.median, "x", note=f"behind the queue until durable; {queued.note('x')}"),
        Row("audit.receipt.rate", found["receipt"].median, "entries/s", note=found["receipt"].note("entries/s")),
        Row("audit.lines.rate", found["lines"].median, "lines/s", note=found["lines"].note("lines/s")),
        Row("audit.fdatasync", syncs, "1/s", note="of 4 KiB, on the disk of this run"),
    ]
