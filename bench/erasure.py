"""Erasing one person among very many, and what it costs to have each event signed by itself.

An erasure is measured as a caller sees it: permission, certificate, commit, scrubbing of the database's files.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.disk import fdatasyncs
from bench.harness import Progress, Row, at_most, interleave
from hauberk import Runtime
from hauberk.core.config import load
from hauberk.core.event import Event, Private
from hauberk.core.ids import uuid7
from hauberk.core.principal import Kind, Principal

SUBJECTS = 100_000
BATCH = 1_000
ERASED = 30
ROUNDS = 7
BATCHES = 10
EMAIL = b'"someone@example.org"'
ME = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/default/sa/default")
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: default}
spec: {rules: [{}]}
"""


def _events(first: int, count: int, *, alone: bool = False) -> list[Event]:
    now = time.time_ns()
    return [
        Event(
            id=uuid7(), type="shop.order.placed.v1", stream=f"/streams/order-{number % 1_000}", time_ns=now,
            data={"total": number}, private=(Private("email", f"cust-{number}", EMAIL),), alone=alone,
        )
        for number in range(first, first + count)
    ]  # fmt: skip


def _runtime(directory: Path, stack: ExitStack) -> Runtime:
    (directory / "all.yaml").write_text(ALLOW)
    runtime = Runtime.embedded(directory / "state", policies=directory / "all.yaml", config=load(environ={}))
    stack.callback(runtime.close)
    return runtime


def _erasures(directory: Path, progress: Progress) -> list[float]:
    """Milliseconds of each erasure."""
    with ExitStack() as stack:
        events = _runtime(directory, stack).events
        for first in range(0, SUBJECTS, BATCH):
            events.ledger.append_batch(_events(first, BATCH)).result()
        progress(f"erasing among {SUBJECTS} people")
        took = []
        for number in range(ERASED):
            started = time.perf_counter()
            events.erase(f"cust-{number * 997}", actor=ME, reason="bench").result()
            took.append((time.perf_counter() - started) * 1000)
        return took


def _signed(directory: Path, *, alone: bool) -> Callable[[], float]:
    numbers: list[int] = []

    def case() -> float:
        numbers.append(0)
        place = directory / f"{alone}-{len(numbers)}"
        place.mkdir()
        with ExitStack() as stack:
            ledger = _runtime(place, stack).events.ledger
            batches = [_events(at * BATCH, BATCH, alone=alone) for at in range(BATCHES)]
            started = time.perf_counter()
            for batch in batches:
                ledger.append_batch(batch).result()
            return BATCH * BATCHES / (time.perf_counter() - started)

    return case


def run(progress: Progress) -> list[Row]:
    """Measure erasures, and events signed alone beside events signed by the batch."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        progress(f"recording {SUBJECTS} people")
        took = _erasures(directory, progress)
        disk = fdatasyncs(directory)
        progress("signing each event")
        found = interleave({"alone": _signed(directory, alone=True), "batch": _signed(directory, alone=False)}, ROUNDS)
        beside = found["alone"].over(found["batch"])
        many = f"among {SUBJECTS} people, scrubbed; slowest of {ERASED}: {max(took):.1f} ms; {disk:.0f} fdatasync/s"
        alone = f"signed one by one, of signed by the batch; {beside.note('x')}"
        return [
            at_most("ledger.erase", statistics.median(took), 10.0, "ms", note=many),
            Row("ledger.signed.event", beside.median, "x", note=alone),
        ]
