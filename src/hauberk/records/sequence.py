"""The end of a log and what comes next: from encoded events to entries, tiles, statements and a signed head.

Nothing here is durable: `Sequence.next` makes a `Step`, whoever committed it hands it to `Sequence.took`. After a
failure `Sequence.reload` believes only what the store says. One thread uses a sequence.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from hauberk.core.clock import Clock
from hauberk.core.event import ABSENT, NO_KEY, SIGNED, Entry, Event, encode_leaf
from hauberk.core.ids import uuid7
from hauberk.core.ports import END, Append, Check, Delete, Head, Put, Store, Write
from hauberk.crypto.merkle import EMPTY_ROOT, Frontier
from hauberk.crypto.note import Checkpoint, sign_checkpoint
from hauberk.crypto.signing import SigningKey
from hauberk.errors import Malformed
from hauberk.records._tiles import load_writer
from hauberk.records.heads import origin_of, signed_frontier
from hauberk.records.job import Job, Pair, encoded
from hauberk.records.keys import Sealing, SubjectKeys
from hauberk.records.statement import CERTIFIED, STREAM, Producer, Statement, signers_in
from hauberk.records.tile_paths import WIDTH

CACHED_STREAMS = 10_000  # stream versions kept in memory; the rest are looked up


class Step(msgspec.Struct):
    """One write, not committed yet.

    Args:
        write: what to commit.
        frontier: of the tree after it.
        stale: jobs left out because a stream has another version than they expect.
        sealing: keys it made.
        introduced: fingerprints of producers that appear with it.
    """

    write: Write
    frontier: Frontier
    stale: list[Job]
    sealing: Sealing | None
    introduced: set[bytes]

    @property
    def entries(self) -> Collection[Entry]:
        """What is appended."""
        return self.write.append.entries if self.write.append else ()


class Sequence:
    """The end of one log.

    Args:
        store: where it lives.
        log: its name in the store.
        signer: the log's key.
        keys: of subjects; without them an event with private values is refused.
        producer: who signs what this process itself records, asked for each write: identities are renewed.
        clock: time source of leaves.

    Raises:
        Tampered: HBK-710 when the stored head and its signed checkpoint disagree.
    """

    def __init__(
        self,
        store: Store,
        log: str,
        signer: SigningKey,
        *,
        keys: SubjectKeys | None,
        producer: Callable[[], Producer] | None,
        clock: Clock,
    ) -> None:
        self._store = store
        self.log = log
        self._signer = signer
        self._keys = keys
        self._producer = producer
        self._clock = clock
        self._introduced: set[bytes] = set()
        self._current = False  # whether what is in memory is what the store has
        self._learnt = False  # whether the producers in the log are known
        self.reload()

    def reload(self) -> None:
        """Believe only what the store says.

        Raises:
            Tampered: HBK-710.
        """
        self._current = False
        self._versions: dict[str, int] = {}
        self.head = self._store.head(self.log)
        self.frontier = signed_frontier(self.log, self.head, self._signer.public)
        self._tiles = load_writer(self._store, self.log, self.head.size)
        self._current = True

    def next(self, jobs: Iterable[Job], known: Mapping[bytes, int], *, epoch: int | None = None) -> Step:
        """Return the write that appends the events of these jobs.

        Args:
            jobs: in order.
            known: positions of events that are in the log already, which are left out.
            epoch: to start a new one.

        Raises:
            RecordsError: HBK-716 private values, and no keys to seal them with.
        """
        if not self._current:  # what came of the step before is not known yet, because nobody could look
            self.reload()
        if len(self._versions) > CACHED_STREAMS:
            self._versions.clear()
        draft = _Draft(self, known)
        stale = [job for job in jobs if not draft.take(job)]
        rows = draft.rows
        sealing = draft.sealing
        if sealing is not None:
            rows.extend(sealing.rows)
        append = None
        if draft.entries:
            self._current = False  # until the step is taken, or the store was read again
            self._tiles.extend(draft.hashes, draft.frontier)
            head = self._sign(draft.frontier, self.head.epoch if epoch is None else epoch)
            append = Append(self.log, self.head.size, draft.finished(), head, self._tiles.take())
        return Step(Write(append, rows), draft.frontier, stale, sealing, draft.introduced)

    def took(self, step: Step) -> None:
        """A step is durable."""
        if step.write.append is not None:
            self.head, self.frontier = step.write.append.head, step.frontier
            self._current = True
        if step.sealing is not None:
            step.sealing.done()
        self._introduced |= step.introduced

    def _sign(self, frontier: Frontier, epoch: int) -> Head:
        checkpoint = Checkpoint(origin_of(self.log, epoch), frontier.size, frontier.root())
        note = sign_checkpoint(checkpoint, self._signer)
        return Head(frontier.size, frontier.encode(), note.encode(), epoch)

    def empty(self) -> str:
        """Return the signed note of the log before its first entry."""
        return sign_checkpoint(Checkpoint(origin_of(self.log, self.head.epoch), 0, EMPTY_ROOT), self._signer)

    # what a draft asks

    def versions(self, streams: Iterable[str]) -> dict[str, int]:
        """Return the version of each of these streams, in a dictionary that the next entries count up."""
        unknown = set(streams) - self._versions.keys()
        if unknown:
            found = self._store.versions(self.log, sorted(unknown))
            self._versions.update({stream: found.get(stream, 0) for stream in unknown})
        return self._versions

    def sealing(self) -> Sealing:
        """Return what seals the values of the next write."""
        if self._keys is None:
            raise Malformed("private values are recorded in an event store, which has the keys to seal them")
        return self._keys.sealing()

    def producer(self) -> Producer | None:
        """Return who signs what this process records itself."""
        return self._producer() if self._producer is not None else None

    def introduced(self, producer: Producer) -> bool:
        """Tell whether the log says who this producer is."""
        if not self._learnt:
            self._introduced.update(signers_in(self._store.stream(self.log, STREAM, limit=END)))
            self._learnt = True
        return producer.fingerprint in self._introduced

    def introduction(self, producer: Producer) -> Pair:
        """Return the event that introduces a producer."""
        now = self._clock.time_ns()
        event = Event(id=uuid7(now_ns=now), type=CERTIFIED, stream=STREAM, time_ns=now, data=producer.certificate)
        return encoded((event,))[0]

    def time_ns(self) -> int:
        """Return the time of the next entries."""
        return self._clock.time_ns()


class _Draft:
    """Entries under construction."""

    def __init__(self, end: Sequence, known: Mapping[bytes, int]) -> None:
        self._end = end
        self._known = known
        self._producer = end.producer()
        self._taken: set[bytes] = set()  # event ids of this write
        self._first: int | None = None  # index of the first entry for the producer's next statement
        self._now = end.time_ns()
        self._at = end.head.size
        self.frontier = end.frontier.copy()
        self.entries: list[Entry] = []
        self.hashes: list[bytes] = []
        self.introduced: set[bytes] = set()
        self.rows: list[Put | Delete | Check] = []
        self.sealing: Sealing | None = None
        self._statements: dict[int, bytes] = {}  # by index of the entry that carries it

    def take(self, job: Job) -> bool:
        """Add the events of a job; False, and nothing is added, when a stream is not where the job expects it."""
        fresh = self._fresh(job)
        if job.pairs and not fresh:  # it was committed before, rows and all
            return True
        versions = self._end.versions({*(pair.event.stream for pair in fresh), *job.expected})
        if any(versions[stream] != version for stream, version in job.expected.items()):
            return False
        self._taken.update(pair.event.id for pair in fresh)
        self.rows.extend(job.rows)
        producer = job.signed.producer if job.signed else self._producer
        if producer is not None and fresh:
            self._introduce(producer)
        if job.signed is not None:
            self._end_run()
            first = len(self.entries)
            self._extend(fresh, SIGNED)
            self._cover(first, job.signed.statement, whole=len(fresh) == len(job.pairs))
        elif producer is None:
            self._extend(fresh, 0)
        else:
            self._own(fresh)
        return True

    def _fresh(self, job: Job) -> list[Pair]:
        """Return what is not in the log already, each id once."""
        fresh = {pair.event.id: pair for pair in job.pairs}
        for one in self._known.keys() & fresh.keys():
            del fresh[one]
        if self._taken:
            for one in self._taken & fresh.keys():
                del fresh[one]
        return list(fresh.values())

    def _introduce(self, producer: Producer) -> None:
        if producer.fingerprint not in self.introduced and not self._end.introduced(producer):
            self._end_run()
            self._end.versions((STREAM,))
            self._extend((self._end.introduction(producer),), 0)
            self.introduced.add(producer.fingerprint)

    def _own(self, pairs: list[Pair]) -> None:
        """Add events of this process: one statement for neighbours, one each for those that are signed alone."""
        if not any(pair.event.alone for pair in pairs):
            self._go_on(pairs)
            return
        for pair in pairs:
            if pair.event.alone:
                self._end_run()
            self._go_on((pair,))
            if pair.event.alone:
                self._end_run()

    def _go_on(self, pairs: Iterable[Pair]) -> None:
        if self._first is None:
            self._first = len(self.entries)
        self._extend(pairs, SIGNED)

    def _end_run(self) -> None:
        """Sign what was added since the run began, each segment by itself, so that it can be pruned by itself."""
        first, self._first = self._first, None
        if first is None or self._producer is None:
            return
        while first < len(self.entries):
            end = first + WIDTH - self.entries[first].position % WIDTH
            leaves = [entry.leaf for entry in self.entries[first:end]]
            self._statements[first] = self._producer.state(self._now, leaves)
            first = end

    def _cover(self, first: int, statement: Statement, *, whole: bool) -> None:
        """Keep another producer's statement; where some of its events are in the log already, with all it signed."""
        count = len(self.entries) - first
        if count:
            digests = b"" if whole else statement.digests
            self._statements[first] = replace(statement, count=count, digests=digests).encode()

    def finished(self) -> list[Entry]:
        """Return the entries, statements in their places."""
        self._end_run()
        for at, statement in self._statements.items():
            self.entries[at] = replace(self.entries[at], statement=statement)
        return self.entries

    def _extend(self, pairs: Iterable[Pair], flags: int) -> None:
        """Turn events into entries at the end of the log. The hottest loop here: names are local on purpose."""
        now, position, versions = self._now, self._at, self._end.versions(())
        entries, hashes, hashed, leaf_of = self.entries, self.hashes, sha256, encode_leaf
        for pair in pairs:
            event, meta, public = pair.event, pair.meta, pair.public
            stream = event.stream
            version = versions[stream] = versions[stream] + 1
            sealed, digest, key = b"", ABSENT, NO_KEY
            if event.private:
                sealed, key = self._seal(event, version)
                digest = hashed(sealed).digest()
            leaf = leaf_of(position, now, version, hashed(meta).digest(), hashed(public).digest(), digest, key, flags)
            hashes.append(hashed(b"\x00" + leaf).digest())
            entries.append(Entry(position, event.id, stream, event.type, version, leaf, meta, public, sealed))
            position += 1
        self._at = position

    def _seal(self, event: Event, version: int) -> tuple[bytes, bytes]:
        if self.sealing is None:
            self.sealing = self._end.sealing()
        return self.sealing.seal(event.private, event.stream, version, event.type)
