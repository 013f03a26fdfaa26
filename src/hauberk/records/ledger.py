"""The ledger: one Merkle log, one sequencer thread, acknowledgement only after the commit.

The batch is whatever arrived during the last commit, so it tunes itself: one event at low load, thousands at high load.
For each batch the sequencer drops events it already has, assigns positions and stream versions, seals private values,
hashes leaves into the frontier, signs one checkpoint (C2SP) and commits entries, tiles, frontier and checkpoint in one
write. The signature leaves the process only once that write is durable, and after the high-water mark outside the
database says so too. On start the stored frontier must fit the stored signed checkpoint, and neither may be older than
the mark; a log that was edited or put back under us is refused rather than continued.

Any number of processes may append to one log through a shared store: whoever finds that the head has moved starts again
from there, so they can delay each other and never fork.
"""

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from operator import itemgetter
from random import random
from typing import Protocol

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Entry, Event, Receipt
from hauberk.core.ports import END, Check, Delete, Draft, Head, Mark, Put, Store, made
from hauberk.crypto.note import encode_key
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Conflict, IdTaken, OutcomeUnknown, RecordsError
from hauberk.records._tiles import StoredTree
from hauberk.records.heads import origin_of
from hauberk.records.inbox import Inbox, chained, promise
from hauberk.records.job import NOTHING_EXPECTED, Job, Pair, Signed, encoded, weight
from hauberk.records.keys import SPACES, Lost, SubjectKeys
from hauberk.records.mark import check_mark
from hauberk.records.sequence import Sequence as End
from hauberk.records.sequence import Step
from hauberk.records.statement import Producer

QUEUE = 10_000  # events waiting for the sequencer; beyond it callers wait (back-pressure), nothing is lost
BATCH = 5_000  # events per commit; bounds the memory and the latency of one transaction
LINGER = 0.05  # seconds an event nobody waits for may wait for company; bounds what a crash loses of those
RETRY = 0.5  # seconds between two attempts while the disk fails
ENGINE = "HBK-703"  # the store's engine failed: the same would happen to every event
PATIENT = 3  # attempts after which whoever keeps losing the race for the head steps back a little
STEP_BACK = 0.01  # seconds at most
ALONE = 3  # jobs in a row that the engine fails one by one: then it is not they that are at fault
ROW_ATTEMPTS = 5  # for rows of keys that others change as well
_log = logging.getLogger("hauberk.records")
_first: Callable[[Sequence[Receipt]], Receipt] = itemgetter(0)


class Proof(msgspec.Struct, frozen=True):
    """That one entry is in the log: leaf, audit path and signed checkpoint."""

    position: int
    leaf: bytes
    path: tuple[bytes, ...]
    checkpoint: str


class Witnesses(Protocol):
    """What the ledger asks of whoever has its checkpoints cosigned; see `records.cosign`."""

    def advance(self, head: Head) -> None:
        """There is a newer head. Must not wait."""

    def wait(self, size: int) -> "Future[str]":
        """Return a future of a note, cosigned by the quorum, that covers so many leaves."""

    def close(self) -> None:
        """Stop asking."""


class Ledger:
    """An append-only, provable record. Implements `core.ports.Recorder`; thread-safe.

    Args:
        store: where it lives; stays open when the ledger closes.
        signer: the log's key.
        log: its name, such as `example.org/ledger`; checkpoints of a later epoch add that to it.
        keys: of subjects, for events with private values.
        producer: signs what this process itself records, so that the log's key alone cannot make it up; a function is
            asked for each write, for identities that are renewed.
        mark: the high-water mark, kept outside the store.
        witnesses: have each checkpoint cosigned.
        clock: time source of leaves.
        queue_size: how many jobs may wait.

    Raises:
        Tampered: HBK-710 when the stored head and its signed checkpoint disagree, HBK-713 when they are older than the
            high-water mark.
    """

    def __init__(
        self,
        store: Store,
        signer: SigningKey,
        log: str,
        *,
        keys: SubjectKeys | None = None,
        producer: Producer | Callable[[], Producer] | None = None,
        mark: Mark | None = None,
        witnesses: Witnesses | None = None,
        clock: Clock = SYSTEM_CLOCK,
        queue_size: int = QUEUE,
    ) -> None:
        self.log = log
        self.keys = keys
        self._store = store
        self._signer = signer
        self._mark = mark
        self._witnesses = witnesses
        who = (lambda: producer) if isinstance(producer, Producer) else producer
        known = mark.read() if mark is not None else ""  # before the head: others may raise both meanwhile
        self._end = End(store, log, signer, keys=keys, producer=who, clock=clock)
        if mark is not None:
            check_mark(store, log, self._end.head, known, signer.public)
            if not self._end.head.size:  # so that from the first entry on a mark that is missing was taken away
                mark.write(self._end.empty())
        self._inbox: Inbox[Job] = Inbox(queue_size, LINGER)
        self._held: list[Job] = []  # nobody waits for them and the disk failed; at most what the queue held
        self._at_work: list[Job] = []  # taken out of the inbox and not settled yet
        self._failing = False  # the last write met a failing disk: whoever comes next waits for the outcome
        self._refusal: RecordsError | None = None  # why nothing is signed any more
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ledger {log}", daemon=True)
        self._thread.start()

    # what callers see

    @property
    def origin(self) -> str:
        """The name in checkpoints."""
        return origin_of(self.log, self._end.head.epoch)

    @property
    def verifier(self) -> str:
        """The public key in the text form that `hauberk ledger verify --key` takes."""
        return encode_key(self.origin, self._signer.public)

    def submit(self, event: Event) -> "Future[Receipt]":
        """Take one event; the future resolves after its commit."""
        return chained(self.append_batch((event,)), _first)

    def append_batch(
        self,
        events: Sequence[Event],
        *,
        expected: Mapping[str, int] = NOTHING_EXPECTED,
        rows: Sequence[Put | Delete | Check] = (),
    ) -> "Future[list[Receipt]]":
        """Take events that commit together, in order, or not at all.

        Args:
            events: an id that is in the log already, with the same content, keeps its old position.
            expected: the version that each of these streams must have now; 0 when it must not exist.
            rows: written in the same commit.

        Returns:
            A future of their receipts. It fails with `Conflict` (HBK-701) where a stream or row is not as expected,
            with `IdTaken` (HBK-718) where an id stands for another event, with HBK-715 to HBK-717 for an event that
            cannot be stored, with HBK-703 while the disk fails, and with HBK-706 once the ledger is closed.
        """
        done: Future[list[Receipt]] = promise()
        try:
            pairs = encoded(events)
        except RecordsError as error:
            done.set_exception(error)
            return done
        return self._take(Job(events, pairs, done, expected, rows))

    def append_signed(self, pairs: Sequence[Pair], signed: Signed) -> "Future[list[Receipt]]":
        """Take a batch as another producer made and signed it, byte for byte; see `append_batch`."""
        return self._take(Job([pair.event for pair in pairs], pairs, promise(), signed=signed))

    def _take(self, job: Job) -> "Future[list[Receipt]]":
        done = job.done or promise()
        if self._refusal is not None:
            done.set_exception(self._refusal)
        elif self._closing.is_set() or not self._inbox.put(job):
            done.set_exception(RecordsError("HBK-706", "the ledger is closed"))
        return done

    def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
        """Take one event without waiting for its commit; a future when the queue is full, or the disk fails."""
        free = not (self._closing.is_set() or self._failing or self._refusal)
        if free and self._inbox.offer(Job((event,))):
            return None
        return self.submit(made(event))

    def refuse(self, why: str) -> None:
        """Sign nothing any more: a witness knows another history of this log than the database holds."""
        self._refusal = RecordsError("HBK-713", why)
        _log.error("the ledger signs nothing any more: %s", why)

    def cosigned(self, size: int) -> "Future[str]":
        """Return a future of a note, cosigned by the quorum of witnesses, that covers so many leaves.

        Raises:
            RecordsError: HBK-723 there are no witnesses.
        """
        if self._witnesses is None:
            raise RecordsError("HBK-723", "no witnesses are configured")
        return self._witnesses.wait(size)

    # the sequencer's thread

    def _run(self) -> None:
        try:
            self._follow()
        finally:  # however it ends, nobody may wait for ever
            self._closing.set()
            self._inbox.close()
            for job in [*self._at_work, *(self._inbox.take(sys.maxsize, weight) or ())]:
                job.settle(RecordsError("HBK-703", "recording has ended"))

    def _follow(self) -> None:
        while (jobs := self._inbox.take(BATCH, weight, timeout=RETRY if self._held else None)) is not None:
            self._at_work = [*self._held, *jobs]
            held, self._held = self._held, []
            self._write_all([*held, *(job for job in jobs if job.prepare())])
            self._at_work = []
        held, self._held = self._held, []
        self._write_all(held)
        if self._held:
            _log.error("%d events could not be recorded before the end", len(self._held))

    def _write_all(self, jobs: list[Job]) -> None:
        """Commit jobs, those that destroy keys each alone: what comes after must not use the key any more."""
        together: list[Job] = []
        for job in jobs:
            if job.rows and job.erased:
                self._write(together)
                self._write([job])
                together = []
            else:
                together.append(job)
        self._write(together)

    def _write(self, jobs: list[Job]) -> RecordsError | None:
        """Commit jobs, one by one where they fail together; tell whoever waits. An error of the disk is returned."""
        if not jobs:
            return None
        try:
            if self._refusal is not None:
                raise self._refusal
            stale = self._commit(jobs)
        except RecordsError as error:
            self._reload()
            if len(jobs) > 1 and not isinstance(error, OutcomeUnknown):
                return self._write_each(jobs)
            if error.code == ENGINE or isinstance(error, OutcomeUnknown):
                self._hold(jobs, error)
                return error
            jobs[0].settle(error)
            return None
        self._failing = False
        return self._write_each(stale)

    def _write_each(self, jobs: list[Job]) -> RecordsError | None:
        failed = 0  # in a row
        for number, job in enumerate(jobs, 1):
            error = self._write([job])
            failed = failed + 1 if error is not None else 0
            if error is not None and failed == ALONE:  # a disk that is dead is not asked thousands of times
                self._hold(jobs[number:], error)
                return error
        return None

    def _hold(self, jobs: list[Job], error: RecordsError) -> None:
        """The disk fails: whoever waits is told, what nobody waits for is tried again, and the next has to wait."""
        self._failing = True
        for job in jobs:
            if job.done is None:
                self._held.append(job)
            else:
                job.settle(error)

    def _reload(self) -> None:
        """After a failure, believe only what the store says."""
        self._forget_keys()
        try:
            self._end.reload()
        except RecordsError as error:
            if error.code != ENGINE:  # a disk that fails may come back
                self._closing.set()
                self._inbox.close()

    def _commit(self, jobs: list[Job]) -> list[Job]:
        """Append what these jobs bring, settle them, and return those whose streams are elsewhere than they expect.

        That no event is in the log already is tried first, and looked up only when that is wrong or not known.
        """
        unknown: OutcomeUnknown | None = None
        look = False
        try:
            for attempt in itertools.count(1):
                known = self._look_up(jobs) if look else {}
                step = self._end.next(jobs, known)
                if len(jobs) == 1 and step.stale:
                    if look:
                        raise self._conflict(jobs[0])
                    look = True
                    self._end.reload()
                    continue
                try:
                    self._store.commit(step.write)
                except OutcomeUnknown as error:
                    unknown = error
                    look = True
                    self._forget_keys()
                except Conflict as error:
                    look = look or error.context.get("what") == "entry"
                    self._lost(error, jobs, attempt)
                else:
                    self._done(jobs, step, known)
                    return step.stale
                self._end.reload()
        except RecordsError as error:
            if unknown is not None and not isinstance(error, Conflict | IdTaken):  # nobody could look what came of it
                raise unknown from error
            raise
        raise AssertionError  # the loop has no other end

    def _forget_keys(self) -> None:
        """Their rows are other ones than this process remembers; losing the race for the head says nothing of them."""
        if self.keys is not None:
            self.keys.forget_all()

    def _lost(self, error: Conflict, jobs: list[Job], attempt: int) -> None:
        """Somebody else wrote first. Go on, or raise when the same would happen again."""
        ours = error.context.get("space") in SPACES
        if error.context.get("what") == "row" and (attempt > ROW_ATTEMPTS or not ours or any(job.rows for job in jobs)):
            raise error
        if ours:
            self._forget_keys()
        if attempt > PATIENT:
            self._closing.wait(random() * STEP_BACK)  # noqa: S311  # a pause, no secret

    def _look_up(self, jobs: list[Job]) -> Mapping[bytes, int]:
        """Return the positions of events that are in the log already.

        Raises:
            IdTaken: HBK-718 one of them is another event, and the only job.
        """
        known = self._store.find(self.log, [pair.event.id for job in jobs for pair in job.pairs])
        for pair in (pair for job in jobs for pair in job.pairs if pair.event.id in known):
            at = known[pair.event.id]
            stored = next(self._store.entries(self.log, after=at - 1, before=at + 1, limit=1), None)
            if stored is not None and not same(stored, pair, self.keys):
                raise IdTaken("the id is in the log with other content", position=at)
        return known

    def _conflict(self, job: Job) -> Conflict:
        found = self._end.versions(job.expected)
        stream = next(name for name, version in job.expected.items() if found[name] != version)
        return Conflict("the stream has another version", what="stream", stream=stream, found=found[stream])

    def _done(self, jobs: list[Job], step: Step, known: Mapping[bytes, int]) -> None:
        """A step is durable: move on, raise the mark, and only then tell whoever waits."""
        self._end.took(step)
        if step.write.append is not None:
            self._advance(step.write.append.head)
        for job in jobs:
            if job.rows and self.keys is not None and (erased := job.erased):
                self.keys.forget(erased)
        left = {id(job) for job in step.stale}
        waiting = [job for job in jobs if job.done is not None and id(job) not in left]
        if waiting:
            positions = {**known, **{entry.id: entry.position for entry in step.entries}}
            for job in waiting:
                job.settle([Receipt(pair.event.id, positions[pair.event.id]) for pair in job.pairs])

    def _advance(self, head: Head) -> None:
        if self._mark is not None:
            try:
                self._mark.write(head.checkpoint.decode())
            except RecordsError as error:  # the events are durable; what is weaker now is said
                _log.error("the high-water mark could not be raised: %s", error.code)
        if self._witnesses is not None:
            self._witnesses.advance(head)

    # reading

    def checkpoint(self) -> str:
        """Return the signed note of the last commit; empty for an empty log."""
        return self._store.head(self.log).checkpoint.decode()

    def head(self) -> Head:
        """Return the head as stored."""
        return self._store.head(self.log)

    def entries(
        self,
        *,
        after: int = -1,
        before: int = END,
        stream: str | None = None,
        kind: str | None = None,
        limit: int = 1000,
        backward: bool = False,
    ) -> Iterator[Entry]:
        """Yield stored entries in order or backwards."""
        return self._store.entries(
            self.log, after=after, before=before, stream=stream, kind=kind, limit=limit, backward=backward
        )

    def stream(
        self, name: str, *, above: int = 0, below: int = END, limit: int = 1000, backward: bool = False
    ) -> Iterator[Entry]:
        """Yield stored entries of one stream, by version, in order or backwards."""
        return self._store.stream(self.log, name, above=above, below=below, limit=limit, backward=backward)

    def proof(self, position: int) -> Proof:
        """Return the proof that `position` is in the log as last committed.

        Raises:
            RecordsError: HBK-712 when it is not, HBK-707 when its body was pruned.
        """
        head = self._store.head(self.log)
        path = StoredTree(self._store, self.log).inclusion(position, head.size)
        entry = next(self._store.entries(self.log, after=position - 1, before=position + 1, limit=1), None)
        if entry is None:
            raise RecordsError("HBK-707", "the entry was pruned", position=position)
        return Proof(position, entry.leaf, tuple(path), head.checkpoint.decode())

    def close(self, timeout: float = 10.0) -> None:
        """Commit what was taken, waiting at most `timeout` seconds, then stop. The store stays open."""
        self._closing.set()
        self._inbox.close()
        self._thread.join(timeout)
        if self._witnesses is not None:
            self._witnesses.close()


def same(stored: Entry, pair: Pair, keys: SubjectKeys | None) -> bool:
    """Tell whether a stored entry is this very event; values whose key was destroyed are taken to be."""
    if (stored.meta, stored.public) != (pair.meta, pair.public):
        return False
    opened = keys.open(stored) if keys is not None and stored.sealed else {}
    wanted = {one.path: one.value for one in pair.event.private}
    if keys is None or opened.keys() != wanted.keys():
        return not stored.sealed and not wanted
    return all(isinstance(value, Lost) or value == wanted[path] for path, value in opened.items())
