"""Ports: what the planes ask of the outside. Each docstring is the contract; every adapter passes one shared suite."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec

from hauberk.core.call import Call
from hauberk.core.decision import Decision, Layer
from hauberk.core.event import Entry, Event, Receipt
from hauberk.core.inbound import Inbound

ANY = -1  # expectation: whatever is there
ABSENT_ROW = 0  # expectation: nothing is there
END = (1 << 63) - 1  # above every position and version


class Head(msgspec.Struct, frozen=True):
    """The end of one log.

    Args:
        size: number of leaves.
        frontier: roots of the complete subtrees, largest first, 32 bytes each.
        checkpoint: signed note of this size, empty for an empty log.
        epoch: raised by whoever takes the log over; a writer of a lower one is refused.
    """

    size: int = 0
    frontier: bytes = b""
    checkpoint: bytes = b""
    epoch: int = 0


class Tile(msgspec.Struct, frozen=True):
    """One complete or partial tile of a log's tree (C2SP tlog-tiles): `level`, `index`, hashes of 32 bytes each."""

    level: int
    index: int
    data: bytes


class Append(msgspec.Struct, frozen=True):
    """A batch for one log, taken only if its head still has `expected` leaves and no higher epoch."""

    log: str
    expected: int
    entries: Sequence[Entry]
    head: Head
    tiles: Sequence[Tile] = ()


class Put(msgspec.Struct, frozen=True):
    """Write one row. `expected` is a revision, `ANY` or `ABSENT_ROW`; `expires` is Unix seconds or None."""

    space: str
    key: bytes
    value: bytes
    expected: int = ANY
    expires: float | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove one row. Removing what is absent is no error unless `expected` says otherwise."""

    space: str
    key: bytes
    expected: int = ANY


class Check(msgspec.Struct, frozen=True):
    """Leave a row as it is, but write nothing else unless it has this revision (`ABSENT_ROW` for none)."""

    space: str
    key: bytes
    expected: int


class Write(msgspec.Struct, frozen=True):
    """All or nothing: at most one log batch and any number of rows."""

    append: Append | None = None
    rows: Sequence[Put | Delete | Check] = ()


class Row(msgspec.Struct, frozen=True):
    """One row of the table. Revisions start at 1 and rise with each write of that key."""

    key: bytes
    value: bytes
    revision: int
    expires: float | None = None


class Store(Protocol):
    """An append-only log beside a small table, with one atomic write verb over both.

    Synchronous and thread-safe; durable when a call returns. Expired rows are as good as absent. Whoever makes a store
    closes it; afterwards every call raises `RecordsError` HBK-706. Driver exceptions never escape.
    """

    def commit(self, write: Write) -> int:
        """Apply `write` atomically and return the store's revision.

        Raises:
            Conflict: an expectation failed, or an event id or stream version is in the log already; nothing was
                written. `context["what"]` is `head`, `entry` or `row`; of a head or row `context["found"]` is what is
                there.
            OutcomeUnknown: the connection was lost during the commit.
            RecordsError: HBK-703 the engine failed, nothing was written; HBK-706 closed or unusable.
        """

    def head(self, log: str) -> Head:
        """Return the head of `log`; `Head()` when nothing was ever appended."""

    def entries(
        self,
        log: str,
        *,
        after: int = -1,
        before: int = END,
        stream: str | None = None,
        kind: str | None = None,
        limit: int = 1000,
        backward: bool = False,
    ) -> Iterator[Entry]:
        """Yield at most `limit` entries above position `after` and below `before`, in order or backwards.

        `stream` and `kind` (its type) are exact. Entries whose bodies were pruned are left out.
        """

    def stream(
        self, log: str, stream: str, *, above: int = 0, below: int = END, limit: int = 1000, backward: bool = False
    ) -> Iterator[Entry]:
        """Yield at most `limit` entries of one stream with a version between the two, in order or backwards."""

    def find(self, log: str, ids: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return the positions of those event ids that are in `log`."""

    def versions(self, log: str, streams: Sequence[str]) -> Mapping[str, int]:
        """Return the highest version of each stream that has any."""

    def tile(self, log: str, level: int, index: int) -> bytes:
        """Return the hashes of a tile, complete or partial.

        Raises:
            RecordsError: HBK-707 no such tile.
        """

    def prune(self, log: str, positions: Sequence[int]) -> int:
        """Delete the entries at these positions, all or none, and return how many went.

        Tiles stay, and so does the last entry of each stream, from which its next version follows. What a pruning may
        take at all is for whoever calls this; see `records.retention`.
        """

    def restore(self, log: str, entries: Sequence[Entry]) -> int:
        """Put back entries that were pruned; what is there already stays. Return how many came.

        Whoever calls this has compared them with the tree; here only their positions are.

        Raises:
            Conflict: a position is not below the head; nothing was written.
        """

    def scrub(self) -> bool:
        """Overwrite what was deleted wherever the engine may keep it (free pages, write-ahead log).

        Returns:
            False when something still holds it, such as a long reader or an engine that archives its log.
        """

    def get(self, space: str, key: bytes) -> Row | None:
        """Return a row, or None when absent or expired."""

    def scan(self, space: str, prefix: bytes = b"", *, after: bytes = b"", limit: int = 1000) -> Iterator[Row]:
        """Yield at most `limit` live rows whose key starts with `prefix` and is above `after`, in key order."""

    def close(self) -> None:
        """Release everything. Closing twice is fine."""


class Subscription(Protocol):
    """What `Bus.subscribe` returns."""

    def close(self) -> None:
        """Stop delivery. After it returns no further message is delivered."""


class Bus(Protocol):
    """Fan-out: at most once, in order per subject. Whoever needs more reads the store from its last revision.

    Subjects are dot-separated tokens; a pattern may use `*` for one token and a final `>` for the rest. A subscriber
    that raises loses that message, is reported once, and disturbs nobody else.
    """

    def publish(self, subject: str, data: bytes) -> None:
        """Hand `data` to all present subscribers. Never blocks on a slow one beyond its bounded queue."""

    def subscribe(self, pattern: str, deliver: Callable[[str, bytes], None]) -> Subscription:
        """Call `deliver(subject, data)` from one thread of this subscription until it is closed."""

    def close(self) -> None:
        """Close every subscription."""


class Mark(Protocol):
    """The high-water mark of a log: its last signed checkpoint, kept where whoever puts a database back does not reach.

    A crash may lose the latest write, never what was there before; a mark behind the database is normal.
    """

    def read(self) -> str:
        """Return the signed note, empty when none was ever written.

        Raises:
            RecordsError: HBK-706 it cannot be read.
        """

    def write(self, note: str) -> None:
        """Keep a newer one.

        Raises:
            RecordsError: HBK-703 it cannot be written.
        """


class KeySource(Protocol):
    """Where key-encryption keys come from: a file, the environment, an external KMS."""

    def key(self, name: str) -> bytes:
        """Return the 32 secret bytes called `name`; the same bytes each time.

        Raises:
            ConfigError: HBK-905 missing, exposed to others, or of the wrong length.
        """


class PeerCredentials(msgspec.Struct, frozen=True):
    """What the kernel says about the process at the other end of a Unix socket (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


class Attestor(Protocol):
    """Turns kernel credentials into selectors such as `unix:uid:1000` or `systemd:unit:order.service`."""

    def attest(self, peer: PeerCredentials) -> frozenset[str]:
        """Return what is proven about that process.

        Raises:
            IdentityError: HBK-207 when the process is gone, or is no longer the one that connected.
        """


class Guard(Protocol):
    """A check with a name and a layer; pure over the request, keeps no reference to it."""

    name: str
    layer: Layer

    def check(self, inbound: Inbound) -> Decision | None:
        """Return why the request is refused (or what allows it), or None when there is nothing to say against it."""


class Authorizer(Protocol):
    """May this call happen? What other planes know of `policy`."""

    def decide(self, call: Call) -> Decision:
        """Answer for this call."""


Draft = Callable[[], Event]  # pure, must not raise; a draft is never a denial: those are counted before they are made


def made(event: Event | Draft) -> Event:
    """Return an event, made from its draft if it is one."""
    return event if isinstance(event, Event) else event()


class Recorder(Protocol):
    """Where events go. Thread-safe."""

    def submit(self, event: Event) -> Future[Receipt]:
        """Take an event; the future resolves once it is in the ledger or durable in the spool.

        The future fails with `RecordsError` HBK-703 or HBK-704 when it can be neither. Never blocks: the caller waits
        for the future before it goes on, which bounds how many there are.
        """

    def offer(self, event: Event | Draft) -> Future[Receipt] | None:
        """Take an event behind the bounded queue: None when there was room, else a future to wait for.

        A draft is made into its event later, by the recording thread, so that whoever offers it need not wait for that.
        """

    def close(self, timeout: float = 10.0) -> None:
        """Drain what was taken, waiting at most `timeout` seconds, then stop."""
