"""Programs with a ledger that can be killed in quick succession: `python -m tests.chaos.load`.

This process has everything imported and nothing open. Each line of JSON it reads is an `Order`; it forks a child that
opens the ledger and records without pause, so a child is at work some milliseconds after it was asked for. Children say
what happens in lines that begin with the number of their order:

```
7 started 4711            the process
7 ready 230               it has the ledger open, which has so many entries
7 ack 01928f.. 231        an event is acknowledged, at this position
7 note aGF1YmVy..         a signed checkpoint has left the process, base64
7 took 01928f..           an event is in the queue, and nobody waits for it
7 full                    the queue had no room for an event, whose recorder waits now
7 refused HBK-703         an event was not recorded, and its caller knows
7 broken HBK-713 ...      the ledger could not be opened, or gave up
7 done 50                 it has closed the ledger in order; so many jobs waited at most
7 ended -9                it is gone
```
"""

import os
import random
import resource
import select
import signal
import sys
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import msgspec

from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.mark import FileMark
from hauberk.adapters.memory import MemoryStore
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Event, Private
from hauberk.core.ids import uuid7
from hauberk.core.ports import Head, Store, Write
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.signing import SigningKey
from hauberk.errors import HauberkError, RecordsError
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.statement import Producer

try:  # here, so that no child has to
    from hauberk.adapters.postgres import PostgresStore
except ImportError:
    PostgresStore = None  # type: ignore[assignment,misc]  # only where there is one

LOG = "torture.example/ledger"
SEED = b"s" * 32  # of the log's key
SUBJECTS = 20


class Order(msgspec.Struct, frozen=True):
    """What a child shall do.

    Args:
        number: begins its lines.
        store: `sqlite:PATH` or `postgresql://...`.
        keys: directory of the root secret.
        mark: file of the high-water mark; empty for none.
        threads: that record, each waiting for its event.
        offering: threads that record without waiting, as long as there is room.
        queue: events that may wait.
        batch: most events in one write; a random number up to it is taken.
        room: bytes that any file may grow to for the time being; 0 for no limit.
        slow: seconds that every commit takes longer.
        events: how many each thread records; 0 for as long as it lives.
        early: seconds before a write is on the disk at which it is said to be; what a careful store never does.
    """

    number: int
    store: str
    keys: str
    mark: str = ""
    threads: int = 6
    offering: int = 0
    queue: int = 10_000
    batch: int = 5
    room: int = 0
    slow: float = 0.0
    events: int = 0
    early: float = 0.0


class Slow:
    """A store on a disk that takes its time."""

    def __init__(self, inner: Store, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def commit(self, write: Write) -> int:
        time.sleep(self._seconds)  # the disk
        return self._inner.commit(write)


class Early(MemoryStore):
    """A store that says a write is durable some time before it is, to see that this comes out."""

    def __init__(self, inner: Store, seconds: float) -> None:
        super().__init__()
        self._inner = inner
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(1)

    def _later(self, write: Write) -> None:
        time.sleep(self._seconds)
        self._inner.commit(write)

    def commit(self, write: Write) -> int:
        """Take a write."""
        self._pool.submit(self._later, write)
        return super().commit(write)


class Told:
    """Witnesses that say every checkpoint they are handed: it has left the process."""

    def __init__(self, say: "Say") -> None:
        self._say = say

    def advance(self, head: Head) -> None:
        """There is a newer head."""
        self._say("note", b64encode(head.checkpoint).decode())

    def wait(self, size: int) -> "Future[str]":
        """Nobody cosigns."""
        raise AssertionError(size)

    def close(self) -> None:
        """Nothing is open."""


class Say:
    """Writes whole lines; one that fits a pipe's buffer is never torn, whatever kills the writer."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, *words: object) -> None:
        line = f"{self._number} {' '.join(map(str, words))}\n".encode()
        assert len(line) <= select.PIPE_BUF
        os.write(1, line)


def opened(order: Order) -> Store:
    """Open the store of an order."""
    scheme, _, rest = order.store.partition(":")
    if scheme == "sqlite":
        return SqliteStore(rest)
    assert PostgresStore is not None
    return PostgresStore(order.store, connections=2)


class Load:
    """One child's work."""

    def __init__(self, order: Order, say: Say) -> None:
        self._order = order
        self._say = say
        self._stopping = threading.Event()
        self._deepest = 0  # events that ever waited for the sequencer
        keyring = Keyring(FileKeySource(Path(order.keys)))
        inner = opened(order)
        store: Store = AuthenticRows(Early(inner, order.early) if order.early else inner, keyring)
        if order.slow:
            store = Slow(store, order.slow)  # type: ignore[assignment]  # hands everything else on
        self._store = store
        self.ledger = Ledger(
            store,
            SigningKey(SEED),
            LOG,
            keys=SubjectKeys(store, keyring, shared=not order.store.startswith("sqlite:")),
            producer=Producer.of_key(SigningKey(b"p" * 32)),
            mark=FileMark(Path(order.mark)) if order.mark else None,
            witnesses=Told(say),
            queue_size=order.queue,
        )

    def run(self) -> None:
        """Record until told to stop, or until done."""
        order = self._order
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGUSR1, _give_room)
        self._say("ready", self.ledger.head().size)
        if order.room:
            _limit(order.room)
        work = [self._record] * order.threads + [self._offer] * order.offering
        threads = [threading.Thread(target=one, args=(at,)) for at, one in enumerate(work)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.02)  # so that signals are seen
        self.ledger.close(60)
        self._store.close()
        self._say("done", self._deepest)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()

    def _rounds(self) -> Sequence[int]:
        return range(self._order.events or sys.maxsize)

    def _record(self, thread: int) -> None:
        """Record a few events at a time and wait; every other time in a stream of one's own, whose version is known."""
        chance = random.Random()  # noqa: S311  # no secret
        mine, version = f"/streams/of-{uuid7().hex()}", 0
        for _ in self._rounds():
            if self._stopping.is_set():
                return
            alone = chance.random() < 0.5
            stream = mine if alone else f"/streams/shared-{thread}"
            events = [_event(stream, chance) for _ in range(chance.randint(1, self._order.batch))]
            try:
                done = self.ledger.append_batch(events, expected={mine: version} if alone else {})
                receipts = done.result()
            except RecordsError as error:
                self._say("refused", error.code)
                if error.code in {"HBK-702", "HBK-706"}:  # unknown, or over
                    mine, version = f"/streams/of-{uuid7().hex()}", 0
                if self.ledger_ended(error):
                    return
                time.sleep(0.005)  # as a caller would before it tries again
                continue
            version += len(events) if alone else 0
            for receipt in receipts:
                self._say("ack", receipt.event.hex(), receipt.position)

    @staticmethod
    def ledger_ended(error: RecordsError) -> bool:
        """Tell whether nothing will ever be recorded again."""
        return error.code in {"HBK-706", "HBK-713", "HBK-710"}

    def _offer(self, thread: int) -> None:
        """Record without waiting while there is room, and wait where there is none."""
        chance = random.Random()  # noqa: S311  # no secret
        for _ in self._rounds():
            if self._stopping.is_set():
                return
            event = _event(f"/streams/offered-{thread}", chance, private=False)
            waiting = self.ledger.offer(event)
            self._deepest = max(self._deepest, len(self.ledger._inbox._items))
            if waiting is None:
                self._say("took", event.id.hex())
                continue
            self._say("full")
            try:
                receipt = waiting.result()
            except RecordsError as error:
                self._say("refused", error.code)
                continue
            self._say("ack", receipt.event.hex(), receipt.position)


def _event(stream: str, chance: random.Random, *, private: bool = True) -> Event:
    subject = f"person-{chance.randrange(SUBJECTS)}"
    sealed = (Private("address", subject, b'"' + b"x" * chance.randrange(200) + b'"'),) if private else ()
    return Event(
        id=uuid7(),
        type="torture.noted",
        stream=stream,
        time_ns=time.time_ns(),
        data={"text": "y" * chance.randrange(300)},
        private=sealed,
    )


def _limit(room: int) -> None:
    """Let no file grow beyond so many bytes: what is written there fails, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def _give_room(_signal: int, _frame: FrameType | None) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def child(order: Order) -> int:
    """Work until the end and return how it ended."""
    say = Say(order.number)
    say("started", os.getpid())
    try:
        Load(order, say).run()
    except HauberkError as error:
        say("broken", error.code, error.detail.replace("\n", " ")[:200])
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Fork children as they are ordered, until the input ends; then kill what is left."""
    running: dict[int, int] = {}
    decode = msgspec.json.Decoder(Order).decode
    pending = b""
    open_ = True
    while open_ or running:
        if open_ and select.select([0], [], [], 0.002)[0]:
            data = os.read(0, 65_536)
            open_ = bool(data)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = decode(line)
                pid = os.fork()
                if not pid:
                    os.close(0)
                    code = 2
                    try:
                        code = child(order)
                    finally:
                        os._exit(code)
                running[pid] = order.number
        if not open_:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
        _reap(running, block=not open_)


def _reap(running: dict[int, int], *, block: bool) -> None:
    while running:
        pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
        if not pid:
            return
        Say(running.pop(pid))("ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
