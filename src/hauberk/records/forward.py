"""Recording through the authority: signed batches over mutual TLS, a spool on disk while it cannot be reached.

One thread takes what arrived during the last send as the next batch. When sending fails because the authority is away,
or cannot record either, the batch goes to the spool, which is as good an acknowledgement: acknowledged means in the
ledger or durable here. While anything waits in the spool new batches queue behind it, so order is kept. A batch that
may have arrived (the answer was lost) is sent again; the ledger knows its event ids and stores nothing twice.

Only a refusal of the batch itself is final. A batch of several events is then tried in halves, and a spooled one event
by event under a new signature, so that a bad event fails alone; what is refused for good after it was acknowledged is
kept beside the spool.
"""

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Event, Receipt
from hauberk.core.ports import Draft, made
from hauberk.errors import HauberkError, RecordsError
from hauberk.records.batch import MAX_BATCH_BYTES, MAX_EVENTS, batch_events
from hauberk.records.inbox import Inbox, promise
from hauberk.records.spool import Spool

QUEUE = 10_000
BATCH = MAX_EVENTS // 2
LINGER = 0.05  # seconds an event nobody waits for may wait for company on its way to the authority
RETRY = 0.5  # seconds between two attempts to reach the authority
REFUSED = "HBK-705"
FINAL = {
    REFUSED,
    "HBK-404",
    "HBK-715",
    "HBK-716",
}  # the batch is at fault; on any other code the same batch may pass later
FULL = "HBK-704"
_log = logging.getLogger("hauberk.records")

Send = Callable[[bytes], Sequence[int]]


class _Job(msgspec.Struct, gc=False):
    draft: Event | Draft
    done: "Future[Receipt] | None"

    @property
    def event(self) -> Event:
        """The event, made once, by the recording thread."""
        if not isinstance(self.draft, Event):
            self.draft = self.draft()
        return self.draft


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
        self._held: list[_Job] = []  # taken without a future, could be put nowhere yet; at most a queue's worth
        self.unrecorded = 0  # events let go under `insecure_unrecorded`
        self._at_work: list[_Job] = []  # taken out of the inbox and not settled yet
        self._failing = False  # the last batch could be put nowhere: whoever comes next waits for the outcome
        self.refused = 0  # events of spooled batches the authority refused for good
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def submit(self, event: Event) -> "Future[Receipt]":
        """Take an event; the future resolves once it is in the ledger or durable in the spool."""
        done: Future[Receipt] = promise()
        if self._closing.is_set() or not self._inbox.put(_Job(event, done)):
            done.set_exception(RecordsError("HBK-706", "the recorder is closed"))
        return done

    def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
        """Take an event behind the queue; a future when that is full, or when events can be put nowhere."""
        if not (self._closing.is_set() or self._failing) and self._inbox.offer(_Job(event, None)):
            return None
        return self.submit(made(event))

    def _run(self) -> None:
        try:
            self._follow()
        finally:  # however it ends, nobody may wait for ever
            self._closing.set()
            self._inbox.close()
            for job in [*self._at_work, *(self._inbox.take(sys.maxsize, _weight) or ())]:
                if job.done is not None and not job.done.done():
                    job.done.set_exception(RecordsError("HBK-703", "recording has ended"))

    def _follow(self) -> None:
        while (jobs := self._inbox.take(BATCH, _weight, timeout=self._patience())) is not None:
            self._at_work = jobs
            self._catch_up()
            if jobs:
                self._deliver(jobs)
            self._at_work = []
        self._catch_up()
        if self._held:
            _log.error("%d events could not be recorded before the end", len(self._held))

    def _patience(self) -> float | None:
        """Return how many seconds to wait for events; None, for ever, when nothing else waits to be put somewhere."""
        return RETRY if self._spool.depth or self._held else None

    def _catch_up(self) -> None:
        """Forward what waits, oldest first."""
        try:
            self._drain()
        except RecordsError as error:
            _log.error("the spool cannot be forwarded: %s", error.code)
        held, self._held = self._held, []
        for at in range(0, len(held), BATCH):
            self._deliver(held[at : at + BATCH])

    def _deliver(self, jobs: list[_Job]) -> None:
        try:
            positions = self._place(jobs)
        except HauberkError as error:
            if error.code in FINAL and len(jobs) > 1:  # one bad event must not take the others with it
                middle = len(jobs) // 2
                self._deliver(jobs[:middle])
                self._deliver(jobs[middle:])
            else:
                self._give_up(jobs, error)
            return
        self._failing = False
        for at, job in enumerate(jobs):
            if job.done is not None:
                place = positions[at] if positions is not None else None
                job.done.set_result(Receipt(job.event.id, place, "spool" if place is None else "ledger"))

    def _place(self, jobs: list[_Job]) -> Sequence[int] | None:
        """Put events into the ledger and return their positions, or into the spool and return None."""
        events = [job.event for job in jobs]
        wire = self._wire(events)
        positions = None if self._spool.depth else self._try_send(wire)
        if positions is not None and len(positions) == len(events):
            return positions
        self._spool.put(wire)
        return None

    def _wire(self, events: Sequence[Event]) -> bytes:
        """Sign a batch.

        Raises:
            RecordsError: HBK-715, HBK-716 an event cannot be stored; HBK-705 more than the authority takes.
        """
        wire = self._sign(events)
        if len(wire) > MAX_BATCH_BYTES:
            raise RecordsError(REFUSED, "the batch is too large", bytes=len(wire))
        return wire

    def _try_send(self, wire: bytes) -> Sequence[int] | None:
        """Return the positions, or None when the authority is out of reach or cannot take anything right now."""
        if self._clock.monotonic() < self._next_try:
            return None
        try:
            return self._send(wire)
        except HauberkError as error:
            if error.code in FINAL:
                raise
            self._next_try = self._clock.monotonic() + RETRY
            return None

    def _give_up(self, jobs: list[_Job], error: HauberkError) -> None:
        own = error if isinstance(error, RecordsError) else RecordsError("HBK-703", "recording failed")
        if not self._failing or error.code in FINAL:
            _log.error("%d events could not be recorded: %s", len(jobs), error.code)
        self._failing = error.code not in FINAL
        unrecorded = self._insecure and own.code == FULL
        if unrecorded:
            self.unrecorded += len(jobs)
        for job in jobs:
            if job.done is not None and unrecorded:
                job.done.set_result(Receipt(job.event.id, None, "nowhere"))
            elif job.done is not None:
                job.done.set_exception(own)
            elif self._failing and not unrecorded:
                self._held.append(job)

    def _drain(self) -> None:
        """Forward what waits in the spool, oldest first, until it is empty or the authority is away.

        Raises:
            RecordsError: HBK-703, HBK-706 the spool cannot be read.
        """
        while (wire := self._spool.peek()) is not None:
            try:
                arrived = self._try_send(wire) is not None
            except HauberkError:
                arrived = self._one_by_one(wire)
            if not arrived:
                return
            self._spool.drop()

    def _one_by_one(self, wire: bytes) -> bool:
        """Send the events of a refused batch alone, signed anew; False when the authority went away meanwhile."""
        refused: list[bytes] = []
        try:
            events: Sequence[Event] = batch_events(wire)
        except RecordsError:
            events, refused = (), [wire]
        for event in events:
            alone = wire
            try:
                alone = self._wire((event,))
                if self._try_send(alone) is None:
                    return False
            except HauberkError as error:
                if error.code not in FINAL:
                    return False
                refused.append(alone)
        for body in refused:
            self._set_aside(body)
        return True

    def _set_aside(self, body: bytes) -> None:
        self.refused += 1
        _log.error("the authority refused a spooled event for good")
        try:
            self._spool.set_aside(body)
        except RecordsError as error:
            _log.error("it could not be kept: %s", error.code)

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
