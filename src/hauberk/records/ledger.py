"""The ledger: one Merkle log, one sequencer thread, acknowledgement only after the commit.

The batch is whatever arrived during the last commit, so it tunes itself: one event at low load, thousands at high load.
For each batch the sequencer drops events it already has, assigns positions and stream versions, hashes leaves into the
frontier, signs one checkpoint (C2SP) and commits entries, tiles, frontier and checkpoint in one write. The signature
leaves the process only once that write is durable. On start the stored frontier must fit the stored signed checkpoint;
a log that was edited under us is refused rather than continued.
"""

import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from hashlib import sha256
from itertools import islice

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.event import Entry, Event, Receipt, encode_leaf
from hauberk.core.ports import Append, Draft, Head, Store, Write, made
from hauberk.crypto.merkle import Frontier
from hauberk.crypto.note import Checkpoint, encode_key, sign_checkpoint, verify_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Conflict, RecordsError, Tampered
from hauberk.records._encode import encode_event
from hauberk.records._tiles import StoredTree, load_writer
from hauberk.records.inbox import Inbox, promise

QUEUE = 10_000  # events waiting for the sequencer; beyond it callers wait (back-pressure), nothing is lost
BATCH = 5_000  # events per commit; bounds the memory and the latency of one transaction
LINGER = 0.05  # seconds an event nobody waits for may wait for company; bounds what a crash loses of those
_log = logging.getLogger("hauberk.records")
RETRY = 0.5  # seconds between two attempts while the disk fails
ENGINE = "HBK-703"  # the store's engine failed: the same would happen to every event
CACHED_STREAMS = 10_000  # stream versions kept in memory; the rest are looked up


class Proof(msgspec.Struct, frozen=True):
    """That one entry is in the log: leaf, audit path and signed checkpoint."""

    position: int
    leaf: bytes
    path: tuple[bytes, ...]
    checkpoint: str


class _Pair(msgspec.Struct, gc=False):
    """An event and its two parts as encoded. Thousands are alive at once, and none is part of a cycle."""

    event: Event
    meta: bytes
    public: bytes


class _Job(msgspec.Struct, gc=False):
    """Events that share one future. What nobody waits for has none, and is encoded by the sequencer."""

    drafts: Sequence[Event | Draft]
    pairs: Sequence[_Pair] = ()
    done: "Future[list[Receipt]] | None" = None

    def settle(self, outcome: "list[Receipt] | RecordsError") -> None:
        """Tell whoever waits."""
        if self.done is None:
            if isinstance(outcome, RecordsError):
                _log.error("an event could not be recorded: %s", outcome.code)
        elif self.done.done():
            return
        elif isinstance(outcome, RecordsError):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


def _weight(job: _Job) -> int:
    return len(job.drafts)


def _encoded(events: Iterable[Event]) -> list[_Pair]:
    return [_Pair(event, *encode_event(event)) for event in events]


def _one(receipts: "Future[list[Receipt]]") -> "Future[Receipt]":
    """Turn the future of a batch of one into the future of its receipt."""
    single: Future[Receipt] = promise()

    def settle(finished: "Future[list[Receipt]]") -> None:
        error = finished.exception()
        if error is not None:
            single.set_exception(error)
        else:
            single.set_result(finished.result()[0])

    receipts.add_done_callback(settle)
    return single


class Ledger:
    """An append-only, provable record. Implements `core.ports.Recorder`; thread-safe.

    Args:
        store: where it lives; stays open when the ledger closes.
        signer: the log's key.
        origin: the log's name in checkpoints, such as `example.org/ledger`.
        clock: time source of leaves.
        queue_size: how many jobs may wait.

    Raises:
        Tampered: HBK-710 when the stored head and its signed checkpoint disagree.
    """

    def __init__(
        self, store: Store, signer: SigningKey, origin: str, *, clock: Clock = SYSTEM_CLOCK, queue_size: int = QUEUE
    ) -> None:
        self.origin = origin
        self._store = store
        self._signer = signer
        self._clock = clock
        self._head = store.head(origin)
        self._frontier = self._checked(self._head)
        self._tiles = load_writer(store, origin, self._head.size)
        self._versions: dict[str, int] = {}
        self._inbox: Inbox[_Job] = Inbox(queue_size, LINGER)
        self._held: list[_Job] = []  # nobody waits for them and the disk failed; at most what the queue held
        self._at_work: list[_Job] = []  # taken out of the inbox and not settled yet
        self._failing = False  # the last write met a failing disk: whoever comes next waits for the outcome
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ledger {origin}", daemon=True)
        self._thread.start()

    def _checked(self, head: Head) -> Frontier:
        frontier = Frontier.decode(head.size, head.frontier)
        if head.size:
            try:
                text = head.checkpoint.decode("utf-8", "replace")
                signed = verify_checkpoint(text, self.origin, self._signer.public)
            except RecordsError as error:
                raise Tampered("the stored checkpoint is not ours", position=head.size) from error
            if (signed.size, signed.root) != (head.size, frontier.root()):
                raise Tampered("the stored head does not fit its checkpoint", position=min(signed.size, head.size))
        return frontier

    @property
    def verifier(self) -> str:
        """The public key in the text form that `hauberk ledger verify --key` takes."""
        return encode_key(self.origin, self._signer.public)

    def submit(self, event: Event) -> "Future[Receipt]":
        """Take one event; the future resolves after its commit. Waits while the queue is full."""
        return _one(self.append_batch((event,)))

    def append_batch(self, events: Sequence[Event]) -> "Future[list[Receipt]]":
        """Take events that commit together, in order; an id that is in the log already keeps its old position."""
        done: Future[list[Receipt]] = promise()
        if self._closing.is_set():
            done.set_exception(RecordsError("HBK-706", "the ledger is closed"))
            return done
        try:
            pairs = _encoded(events)
        except RecordsError as error:
            done.set_exception(error)
            return done
        if not self._inbox.put(_Job(events, pairs, done)):
            done.set_exception(RecordsError("HBK-706", "the ledger is closed"))
        return done

    def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
        """Take one event without waiting for its commit; a future when the queue is full, or the disk fails."""
        if not (self._closing.is_set() or self._failing) and self._inbox.offer(_Job((event,))):
            return None
        return self.submit(made(event))

    def _run(self) -> None:
        try:
            self._follow()
        finally:  # however it ends, nobody may wait for ever
            self._closing.set()
            self._inbox.close()
            for job in [*self._at_work, *(self._inbox.take(sys.maxsize, _weight) or ())]:
                job.settle(RecordsError("HBK-703", "recording has ended"))

    def _follow(self) -> None:
        while (jobs := self._inbox.take(BATCH, _weight, timeout=RETRY if self._held else None)) is not None:
            self._at_work = [*self._held, *jobs]
            held, self._held = self._held, []
            self._write([*held, *(job for job in jobs if self._prepared(job))])
            self._at_work = []
        held, self._held = self._held, []
        self._write(held)
        if self._held:
            _log.error("%d events could not be recorded before the end", len(self._held))

    def _write(self, jobs: list[_Job]) -> None:
        """Commit jobs and tell whoever waits. A failed batch is tried again job by job: a bad event fails alone."""
        if not jobs:
            return
        try:
            receipts = iter(self._commit(jobs))
        except RecordsError as error:
            self._reload()
            if error.code == ENGINE:
                self._hold(jobs, error)
            elif len(jobs) == 1:
                jobs[0].settle(error)
            else:
                for job in jobs:
                    self._write([job])
            return
        self._failing = False
        for job in jobs:
            job.settle(list(islice(receipts, len(job.pairs))))

    def _hold(self, jobs: list[_Job], error: RecordsError) -> None:
        """The disk fails: whoever waits is told, what nobody waits for is tried again, and the next has to wait."""
        self._failing = True
        for job in jobs:
            if job.done is None:
                self._held.append(job)
            else:
                job.settle(error)

    @staticmethod
    def _prepared(job: _Job) -> bool:
        """Encode what nobody waits for; what cannot be encoded is reported and left out."""
        if not job.pairs and job.drafts:
            try:
                job.pairs = _encoded(made(draft) for draft in job.drafts)
            except RecordsError as error:
                job.settle(error)
                return False
        return True

    def _reload(self) -> None:
        """After a failure, believe only what the store says."""
        self._versions.clear()
        try:
            head = self._store.head(self.origin)
            self._head, self._frontier = head, self._checked(head)
            self._tiles = load_writer(self._store, self.origin, head.size)
        except RecordsError:
            self._closing.set()
            self._inbox.close()

    def _commit(self, jobs: Sequence[_Job]) -> list[Receipt]:
        """Append events. That none of them is in the log already is tried first and looked up only when it is wrong."""
        pairs = [pair for job in jobs for pair in job.pairs]
        try:
            return self._append(pairs, {})
        except Conflict:
            self._reload()
            return self._append(pairs, self._store.find(self.origin, [pair.event.id for pair in pairs]))

    def _append(self, pairs: Sequence[_Pair], known: Mapping[bytes, int]) -> list[Receipt]:
        positions = dict(known)
        fresh = {pair.event.id: pair for pair in pairs}
        for seen in positions:
            fresh.pop(seen, None)
        if fresh:
            self._learn_versions(pair.event for pair in fresh.values())
            frontier = self._frontier.copy()
            entries = self._entries(fresh.values(), frontier)
            head = self._sign(frontier)
            self._store.commit(Write(Append(self.origin, self._head.size, entries, head, self._tiles.take())))
            self._head, self._frontier = head, frontier
            if len(entries) == len(pairs):
                return [Receipt(entry.id, entry.position) for entry in entries]
            positions.update((entry.id, entry.position) for entry in entries)
        return [Receipt(pair.event.id, positions[pair.event.id]) for pair in pairs]

    def _learn_versions(self, events: Iterable[Event]) -> None:
        if len(self._versions) > CACHED_STREAMS:
            self._versions.clear()
        unknown = {event.stream for event in events} - self._versions.keys()
        if unknown:
            found = self._store.versions(self.origin, sorted(unknown))
            self._versions.update({stream: found.get(stream, 0) for stream in unknown})

    def _entries(self, pairs: Iterable[_Pair], frontier: Frontier) -> list[Entry]:
        """Turn events into entries at the end of the log. The hottest loop here: names are local on purpose."""
        now, position, versions = self._clock.time_ns(), frontier.size, self._versions
        entries, hashes, hashed, leaf_of = [], [], sha256, encode_leaf
        for pair in pairs:
            event, meta, public = pair.event, pair.meta, pair.public
            stream = event.stream
            version = versions[stream] = versions[stream] + 1
            leaf = leaf_of(position, now, version, hashed(meta).digest(), hashed(public).digest())
            hashes.append(hashed(b"\x00" + leaf).digest())
            entries.append(Entry(position, event.id, stream, event.type, version, leaf, meta, public))
            position += 1
        self._tiles.extend(hashes, frontier)
        return entries

    def _sign(self, frontier: Frontier) -> Head:
        note = sign_checkpoint(Checkpoint(self.origin, frontier.size, frontier.root()), self._signer)
        return Head(frontier.size, frontier.encode(), note.encode(), self._head.epoch)

    def checkpoint(self) -> str:
        """Return the signed note of the last commit; empty for an empty log."""
        return self._store.head(self.origin).checkpoint.decode()

    def head(self) -> Head:
        """Return the head as stored."""
        return self._store.head(self.origin)

    def entries(
        self, *, after: int = -1, stream: str | None = None, kind: str | None = None, limit: int = 1000
    ) -> Iterator[Entry]:
        """Yield stored entries in order."""
        return self._store.entries(self.origin, after=after, stream=stream, kind=kind, limit=limit)

    def proof(self, position: int) -> Proof:
        """Return the proof that `position` is in the log as last committed.

        Raises:
            RecordsError: HBK-712 when it is not.
        """
        head = self._store.head(self.origin)
        path = StoredTree(self._store, self.origin).inclusion(position, head.size)
        entry = next(self._store.entries(self.origin, after=position - 1, limit=1))
        return Proof(position, entry.leaf, tuple(path), head.checkpoint.decode())

    def close(self, timeout: float = 10.0) -> None:
        """Commit what was taken, waiting at most `timeout` seconds, then stop. The store stays open."""
        self._closing.set()
        self._inbox.close()
        self._thread.join(timeout)
