"""Having a log cosigned: the ledger goes on writing, one thread has its newest head signed by a quorum of witnesses.

How to put it behind a ledger:

```python
cosigning = Cosigning(store, log, signer.public, policy, send, report=report)  # begins with the stored head at once
cosigning.confirm(timeout)            # before anything is signed: the witnesses know no newer head than the database
ledger = Ledger(store, signer, log, witnesses=cosigning)   # calls cosigning.advance(head) after each commit
cosigning.on_refusal(ledger.refuse)   # proven rollback or rewrite: the ledger signs nothing any more
cosigning.wait(position + 1)          # Future[str]: a cosigned note that covers the position
```

`wait` fails with `NotCosigned` when the quorum is not reached in time, and at once with `WitnessRefused` when there is
no hope; what the caller makes of it is `records.witnessed.Uncosigned`. It is never silent: the first miss of an outage
is logged and handed to `report`, all of them are counted in `status`.

The witnesses are the high-water mark outside the database. A checkpoint under this log's own signature that the
database does not hold proves that it was rolled back or rewritten: cosigning ends, and whoever is told by `on_refusal`
should sign no more. A witness that says so without proof is asked no more, and it takes as many of them as make the
quorum impossible to the same end: one lying witness of several stops nobody.

The newest cosigned note is kept in the store, see `records.cosigned`, so that readers and other processes find it, and
a restart goes on from there.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from queue import Empty, SimpleQueue
from random import random as uniform
from time import monotonic

import msgspec

from hauberk.core.clock import SYSTEM_CLOCK, Clock
from hauberk.core.ports import Head, Store
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import HauberkError, NotCosigned, RecordsError, WitnessRefused
from hauberk.records.asking import (
    NO_ANSWER,
    Contradicted,
    Cosignatures,
    Endpoint,
    Failed,
    Outcome,
    Overtaken,
    Target,
    Transport,
    endpoints,
)
from hauberk.records.cosigned import Cosigned, keep_cosigned, load_cosigned
from hauberk.records.heads import age
from hauberk.records.inbox import promise
from hauberk.records.log_policy import LogPolicy
from hauberk.records.questions import Questions
from hauberk.records.rounds import Rounds, WitnessStatus

PATIENCE = 5.0  # seconds until whoever waits is told that the quorum was not reached
INTERVAL = 1.0  # seconds between two rounds while nobody waits: witnesses are spared, and the head is never far behind
_log = logging.getLogger("hauberk.records")


class CosigningStatus(msgspec.Struct, frozen=True):
    """How cosigning is doing.

    Args:
        head: size of the newest head.
        cosigned: size of the newest head with a quorum.
        lacking: what the quorum of the newest round lacks, and why witnesses failed; empty when it is reached.
        missed: waits that ended without a quorum, since the start.
        outages: times the quorum was lost, since the start.
        refused: why cosigning has ended, empty while it has not.
        witnesses: each URL that is asked.
    """

    head: int
    cosigned: int
    lacking: str
    missed: int
    outages: int
    refused: str
    witnesses: tuple[WitnessStatus, ...]


class _Waiter(msgspec.Struct):
    size: int
    deadline: float
    done: "Future[str]"


class _Answer(msgspec.Struct):
    url: str
    target: Target
    outcome: Outcome


class Cosigning:
    """Has the heads of one log cosigned. Implements `records.ledger.Witnesses`; thread-safe.

    Args:
        store: where the log lives; stays open.
        log: its name there.
        key: the log's public key.
        policy: the witnesses, where they are, and the quorum.
        send: how they are reached, see `records.asking.Transport`; called from several threads.
        patience: seconds `wait` gives the witnesses unless told otherwise.
        interval: seconds between two rounds while nobody waits.
        report: told in words when the quorum is lost, or a witness contradicts the log; called from the thread that
            asks, must not wait for the ledger.
        clock: of patience and delays.
        random: spreads delays.

    Raises:
        RecordsError: HBK-723 the quorum cannot be reached with the witnesses that have a URL.
    """

    def __init__(
        self,
        store: Store,
        log: str,
        key: VerifyKey,
        policy: LogPolicy,
        send: Transport,
        *,
        patience: float = PATIENCE,
        interval: float = INTERVAL,
        report: Callable[[str], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = uniform,
    ) -> None:
        self._store = store
        self._log = log
        self._key = key
        self._policy = policy
        self._patience = patience
        self._report = report
        self._send = send
        self._clock = clock
        self._endpoints = {one.url: one for one in endpoints(policy.witnesses, self._put, store, log, key, clock)}
        names = {url: one.names for url, one in self._endpoints.items()}
        if why := policy.missing([name for there in names.values() for name in there]):
            raise RecordsError("HBK-723", f"with the witnesses that have a URL {why}")
        self._inbox: SimpleQueue[_Waiter | _Answer | None] = SimpleQueue()  # None only wakes
        # Each is written by one thread: _newest by whoever calls advance, the others by the thread that asks.
        self._newest = store.head(log)
        self._found = Head()  # read from the store after a witness knew more
        self._at = Head()  # of the present round
        self._cosigned: Cosigned | None = load_cosigned(store, log, key, policy)
        self._waiters: list[_Waiter] = []
        self._rounds = Rounds(policy, names, interval=interval, random=random)
        self._missed = self._outages = 0
        self._short = False  # the quorum is lost, and was reported
        self._parked = False  # the thread sleeps until there is a newer head
        self._confirmed: Future[None] = promise()
        self._lock = threading.Lock()  # guards _closed, _refusal and _told
        self._closed = False
        self._refusal: WitnessRefused | None = None
        self._told: list[Callable[[str], None]] = []
        self._questions = Questions(f"cosigning {log}")
        self._thread = threading.Thread(target=self._run, name=f"cosigning {log}", daemon=True)
        self._thread.start()

    # what a ledger calls

    def advance(self, head: Head) -> None:
        """There is a newer head. Costs two assignments while cosigning is at work on an older one."""
        self._newest = head
        if self._parked:
            self._parked = False
            self._inbox.put(None)

    def wait(self, size: int, timeout: float | None = None) -> "Future[str]":
        """Return a future of a note, cosigned by the quorum, that covers so many entries.

        It fails with `NotCosigned` (HBK-720) after `timeout` seconds, by default those of `patience`, and with
        `WitnessRefused` (HBK-722) once cosigning has ended.
        """
        done: Future[str] = promise()
        known = self._cosigned
        if known is not None and known.checkpoint.size >= size and self._refusal is None:
            done.set_result(known.note)
            return done
        deadline = self._clock.monotonic() + (self._patience if timeout is None else timeout)
        with self._lock:
            if not self._closed:
                self._inbox.put(_Waiter(size, deadline, done))
                return done
        done.set_exception(NotCosigned("cosigning is closed", position=size - 1))
        return done

    def confirm(self, timeout: float | None = None) -> None:
        """Return once a quorum of witnesses has said that it knows no newer head of this log than the database holds.

        To be called on a start, before anything new is signed. Of an empty log a witness says it by having nothing at
        the place for monitors, which not all witnesses have.

        Raises:
            WitnessRefused: HBK-722 the database is older than what was cosigned, or holds another history.
            NotCosigned: HBK-720 too few have answered in time.
        """
        patience = self._patience if timeout is None else timeout
        if not self._head().size:
            self._confirm_empty(patience)
            return
        try:
            self._confirmed.result(patience)
        except TimeoutError:
            raise NotCosigned("the witnesses have not answered", position=self._head().size - 1) from None

    def _confirm_empty(self, timeout: float) -> None:
        """Ask all at once, and hear all who answer in time: one that holds a newer head counts against any quorum."""
        asked = {self._questions.put(partial(self._learn, one)): one for one in self._endpoints.values()}
        left, until = set(asked), monotonic() + timeout
        while left and self._refusal is None:
            heard, left = wait(left, max(0.0, until - monotonic()), FIRST_COMPLETED)
            if not heard:
                break
        if self._refusal is not None:
            raise self._refusal
        agreeing = [name for one, endpoint in asked.items() if one.done() and one.result() for name in endpoint.names]
        if why := self._policy.missing(agreeing):
            raise NotCosigned(f"too few witnesses have answered: {why}")

    def _learn(self, endpoint: Endpoint) -> bool:
        """Return whether a witness knows nothing of a log that is empty here; the rest of the answers is seen to."""
        outcome = endpoint.known(self._log)
        if isinstance(outcome, Contradicted):
            self._end(endpoint, outcome)
        return isinstance(outcome, Cosignatures)

    def on_refusal(self, tell: Callable[[str], None]) -> None:
        """Have somebody told, in words, when cosigning ends because the log was rolled back or rewritten."""
        with self._lock:
            self._told.append(tell)
            refusal = self._refusal
        if refusal is not None:
            tell(refusal.detail)

    @property
    def cosigned(self) -> Cosigned | None:
        """The newest checkpoint with a quorum."""
        return self._cosigned

    @property
    def refusal(self) -> WitnessRefused | None:
        """Why cosigning has ended; `context["proof"]` is a checkpoint of this log that the database does not hold."""
        return self._refusal

    def status(self) -> CosigningStatus:
        """Return how it is going."""
        rounds, refusal, known = self._rounds, self._refusal, self._cosigned
        return CosigningStatus(
            head=self._head().size,
            cosigned=0 if known is None else known.checkpoint.size,
            lacking=rounds.lacking() if rounds.target is not None else "",
            missed=self._missed,
            outages=self._outages,
            refused="" if refusal is None else refusal.detail,
            witnesses=tuple(seat.status(url) for url, seat in rounds.seats.items()),
        )

    def close(self, timeout: float = 10.0) -> None:
        """Stop asking; whoever waits is told. What was reached is kept. Closing twice is fine.

        Args:
            timeout: seconds that questions under way may take to end; afterwards the transport may be closed.
        """
        with self._lock:
            self._closed = True
        self._inbox.put(None)
        until = monotonic() + timeout
        self._thread.join(timeout)
        self._questions.wait(max(0.0, until - monotonic()))

    # the thread that asks

    def _run(self) -> None:
        while not self._closed:
            now = self._clock.monotonic()
            self._expire(now)
            self._step(now)
            self._take(self._pause())
        self._take(0.0)
        self._answer(self._waiters, NotCosigned("cosigning is closed"))

    def _head(self) -> Head:
        return max(self._newest, self._found, key=age)

    def _newer(self) -> bool:
        return age(self._head()) > age(self._at) and self._refusal is None

    def _step(self, now: float) -> None:
        """Begin a round if there is a newer head and its time has come, and ask whoever may be asked."""
        if self._newer() and self._rounds.ready(now, urgent=bool(self._waiters)):
            self._begin(self._head(), now)
        target = self._rounds.target
        if target is not None and self._refusal is None:
            for url in self._rounds.ask(now):
                self._questions.put(partial(self._ask, self._endpoints[url], target))

    def _begin(self, head: Head, now: float) -> None:
        self._at = head
        try:
            target = Target.of(head, self._key)
        except RecordsError as error:
            self._lose(f"the head of the log is not signed by its key: {error.detail}")
            return
        if self._cosigned is not None and self._cosigned.checkpoint.origin != target.checkpoint.origin:
            self._cosigned = None  # another epoch: what covered a position then says nothing about it now
        self._rounds.begin(target, now)
        if self._rounds.reached:
            self._reach(target)

    def _put(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        """The transport, until this is closed: what is under way then ends with its present question."""
        return (NO_ANSWER, b"closed") if self._closed else self._send(url, body)

    def _ask(self, endpoint: Endpoint, target: Target) -> None:
        """In a thread of the pool: put the question, and hand over what came of it."""
        outcome: Outcome = Failed("the question could not be put")
        try:
            outcome = endpoint.cosign(target)
        finally:
            self._inbox.put(_Answer(endpoint.url, target, outcome))

    def _pause(self) -> float | None:
        """Return how long nothing happens by itself, in seconds, or None when it takes news."""
        self._parked = True  # before the look at what is newest, so that a head which comes after it wakes
        newer, now = self._newer(), self._clock.monotonic()
        self._parked = not newer
        waits = [waiter.deadline - now for waiter in self._waiters]
        due = self._rounds.due(now, newer=newer, urgent=bool(self._waiters)) if self._refusal is None else None
        return max(0.0, min([*waits, *(() if due is None else (due,))])) if waits or due is not None else None

    def _take(self, timeout: float | None) -> None:
        """Wait for news, and take all there is."""
        try:
            news = self._inbox.get(timeout=timeout)
            while True:
                if isinstance(news, _Waiter):
                    self._admit(news)
                elif news is not None:
                    self._hear(self._endpoints[news.url], news.target, news.outcome)
                news = self._inbox.get_nowait()
        except Empty:
            return

    def _admit(self, waiter: _Waiter) -> None:
        if self._refusal is not None:
            waiter.done.set_exception(self._refusal)
        elif self._cosigned is not None and self._cosigned.checkpoint.size >= waiter.size:
            waiter.done.set_result(self._cosigned.note)
        else:
            self._waiters.append(waiter)

    def _hear(self, endpoint: Endpoint, target: Target, outcome: Outcome) -> None:
        match outcome:
            case Cosignatures(lines, forgot):
                if forgot:
                    self._say(f"witness {', '.join(endpoint.names)} has lost its memory: {forgot}")
                if self._rounds.signed(endpoint.url, target, lines):
                    self._reach(target)
            case Overtaken(head):
                self._found = head
                self._rounds.overtaken(endpoint.url)
                kept = load_cosigned(self._store, self._log, self._key, self._policy)
                if kept is not None:  # whoever was faster may have what those here wait for
                    self._settle(kept)
            case Failed(why):
                self._rounds.failed(endpoint.url, why, self._clock.monotonic())
                if self._rounds.lost():
                    self._lose(f"the quorum of witnesses is lost: {self._rounds.lacking()}")
            case Contradicted():
                self._rounds.contradicted(endpoint.url, outcome.why)
                if outcome.proof or self._rounds.hopeless():
                    self._end(endpoint, outcome)
                else:
                    self._say(f"witness {', '.join(endpoint.names)} is asked no more: {outcome.why}")

    def _expire(self, now: float) -> None:
        """Tell those whose patience has ended, or who wait for nothing."""
        if self._refusal is not None:
            self._answer(self._waiters, self._refusal)
            return
        late = [waiter for waiter in self._waiters if waiter.deadline <= now]
        if late:
            self._missed += len(late)
            self._lose(f"the quorum of witnesses was not reached in time: {self._rounds.lacking()}")
            self._answer(late, NotCosigned(self._rounds.lacking(), position=min(waiter.size for waiter in late) - 1))

    def _answer(self, waiters: list[_Waiter], outcome: str | RecordsError) -> None:
        gone = {id(waiter) for waiter in waiters}
        self._waiters = [waiter for waiter in self._waiters if id(waiter) not in gone]
        for waiter in waiters:
            if isinstance(outcome, RecordsError):
                waiter.done.set_exception(outcome)
            else:
                waiter.done.set_result(outcome)

    def _end(self, endpoint: Endpoint, found: Contradicted) -> None:
        """Nothing more is asked for: what the witnesses know is not what the database holds."""
        names = ", ".join(endpoint.names)
        refusal = WitnessRefused(found.why, status=found.status, witness=names, proof=found.proof)
        with self._lock:
            if self._refusal is not None:
                return
            self._refusal = refusal
            told = list(self._told)
        self._say(f"witness {names} refuses the log: {found.why}")
        if not self._confirmed.done():
            self._confirmed.set_exception(refusal)
        for tell in told:
            tell(found.why)
        self._inbox.put(None)

    def _say(self, what: str) -> None:
        _log.error("%s", what)
        if self._report is not None:
            self._report(what)

    def _lose(self, why: str) -> None:
        """The quorum is lost: say so, once until it is back."""
        if not self._short:
            self._short = True
            self._outages += 1
            self._say(why)

    def _reach(self, target: Target) -> None:
        """The present round has its quorum, or one more signature than that."""
        lines = [self._rounds.lines[one.name] for one in self._policy.witnesses if one.name in self._rounds.lines]
        reached = Cosigned(target.checkpoint, target.note + "".join(lines))
        try:
            keep_cosigned(self._store, self._log, reached)
        except HauberkError as error:
            _log.error("a cosigned checkpoint could not be kept: %s", error.code)
        self._settle(reached)
        if self._short:
            self._short = False
            _log.info("the quorum of witnesses is reached again")
        if not self._confirmed.done():
            self._confirmed.set_result(None)

    def _settle(self, reached: Cosigned) -> None:
        """Answer those whom a cosigned note covers."""
        known = self._cosigned
        if known is None or known.checkpoint.size <= reached.checkpoint.size:
            self._cosigned = reached
        self._answer([one for one in self._waiters if one.size <= reached.checkpoint.size], reached.note)
