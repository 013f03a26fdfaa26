"""Recording through the authority: signed batches over mutual TLS, a spool on disk while it cannot be reached.

One thread takes what arrived during the last send as the next batch. When sending fails because the authority is away
the batch goes to the spool, which is as good an acknowledgement: acknowledged means in the ledger or durable here.
While anything waits in the spool new batches queue behind it, so order is kept. A batch that may have arrived (the
answer was lost) is sent again; the ledger knows its event ids and stores nothing twice.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Event, Receipt
from hauberk.errors import HauberkError, RecordsError
from hauberk.records.batch import MAX_EVENTS
from hauberk.records.inbox import Inbox
from hauberk.records.spool import Spool

QUEUE = 10_000
BATCH = MAX_EVENTS // 2
LINGER = 0.05  # seconds an event nobody waits for may wait for company on its way to the authority
RETRY = 0.5  # seconds between two attempts to reach the authority
UNREACHABLE = "HBK-902"
REFUSED = "HBK-705"
_log = logging.getLogger("hauberk.records")

Send = Callable[[bytes], Sequence[int]]


class _Job(msgspec.Struct):
    event: Event
    done: "Future[Receipt] | None"


def _weight(_job: _Job) -> int:
    return 1


class Forwarder:
    """Implements `core.ports.Recorder` over an authority. Thread-safe.

    Args:
        send: delivers a signed batch and returns the positions of its events; raises HBK-902 when out of reach.
        sign: makes the wire form of a batch.
        spool: where batches wait; closed with this.
        queue_size: events that may wait in memory.
        insecure_unrecorded: when the spool is full too, go on (`Receipt.where` is `nowhere`) instead of refusing.
        clock: for pauses between attempts.
    """

    def __init__(
        self,
        send: Send,
        sign: Callable[[Sequence[Event]], bytes],
        spool: Spool,
        *,
        queue_size: int = QUEUE,
        insecure_unrecorded: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._send = send
        self._sign = sign
        self._spool = spool
        self._insecure = insecure_unrecorded
        self._clock = clock
        self._inbox: Inbox[_Job] = Inbox(queue_size, LINGER)
        self._next_try = 0.0
        self.unrecorded = 0  # events let go under `insecure_unrecorded`
        self._failing = False  # the last batch could be put nowhere: whoever comes next waits for the outcome
        self.refused = 0  # events of spooled batches the authority refused for good
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def submit(self, event: Event) -> "Future[Receipt]":
        """Take an event; the future resolves once it is in the ledger or durable in the spool."""
        done: Future[Receipt] = Future()
        if self._closing.is_set():
            done.set_exception(RecordsError("HBK-706", "the recorder is closed"))
        else:
            self._inbox.put(_Job(event, done))
        return done

    def offer(self, event: Event) -> "Future[Receipt] | None":
        """Take an event behind the queue; a future only when it is full, resolved once there was room."""
        if self._closing.is_set() or self._failing:
            return self.submit(event)
        if self._inbox.offer(_Job(event, None)):
            return None
        done: Future[Receipt] = Future()
        threading.Thread(target=self._inbox.put, args=(_Job(event, done),), daemon=True).start()
        return done

    def _run(self) -> None:
        while (jobs := self._inbox.take(BATCH, _weight, timeout=RETRY if self._spool.depth else None)) is not None:
            self._drain()
            if jobs:
                self._deliver(jobs)
        self._drain()

    def _deliver(self, jobs: list[_Job]) -> None:
        events = [job.event for job in jobs]
        try:
            wire = self._sign(events)
            positions = self._try_send(wire) if not self._spool.depth else None
            if positions is None:
                self._spool.put(wire)
        except HauberkError as error:
            if error.code == REFUSED and len(jobs) > 1:  # one bad event must not take the others with it
                for job in jobs:
                    self._deliver([job])
            else:
                self._give_up(jobs, error)
            return
        self._failing = False
        for at, job in enumerate(jobs):
            if job.done is not None:
                place = positions[at] if positions is not None else None
                job.done.set_result(Receipt(job.event.id, place, "spool" if place is None else "ledger"))

    def _try_send(self, wire: bytes) -> Sequence[int] | None:
        """Return the positions, or None when the authority is out of reach."""
        if self._clock.monotonic() < self._next_try:
            return None
        try:
            return self._send(wire)
        except HauberkError as error:
            if error.code != UNREACHABLE:
                raise
            self._next_try = self._clock.monotonic() + RETRY
            return None

    def _give_up(self, jobs: list[_Job], error: HauberkError) -> None:
        own = error if isinstance(error, RecordsError) else RecordsError("HBK-703", "recording failed")
        self._failing = own.code != REFUSED
        if self._insecure and own.code == "HBK-704":
            self.unrecorded += len(jobs)
        for job in jobs:
            if job.done is None:
                _log.error("an event could not be recorded: %s", own.code)
            elif self._insecure and own.code == "HBK-704":
                job.done.set_result(Receipt(job.event.id, None, "nowhere"))
            else:
                job.done.set_exception(own)

    def _drain(self) -> None:
        """Forward what waits in the spool, oldest first, until it is empty or the authority is away."""
        while (wire := self._spool.peek()) is not None:
            try:
                if self._try_send(wire) is None:
                    return
            except HauberkError as error:
                self.refused += 1
                _log.error("the authority refused a spooled batch: %s", error.code)
            self._spool.drop()

    def depth(self) -> int:
        """Return how many batches wait in the spool."""
        return self._spool.depth

    def age(self) -> float:
        """Return how long the oldest spooled batch has waited, in seconds."""
        return self._spool.age()

    def close(self, timeout: float = 10.0) -> None:
        """Deliver or spool what was taken, waiting at most `timeout` seconds, then stop."""
        if not self._closing.is_set():
            self._closing.set()
            self._inbox.close()
        self._thread.join(timeout)
        self._spool.close()
