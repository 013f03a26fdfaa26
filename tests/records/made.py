"""Events, entries and identities made up for tests of the record."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path

import msgspec

from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.clock import ManualClock
from hauberk.core.event import Entry, Event, Receipt, encode_leaf
from hauberk.core.ids import uuid7
from hauberk.core.ports import Append, Draft, Head, made
from hauberk.core.spiffe import SpiffeId
from hauberk.crypto.signing import SigningKey
from hauberk.crypto.x509 import CertificateAuthority, WorkloadKey
from hauberk.records._encode import Meta
from hauberk.records.batch import encode_batch
from hauberk.records.ledger import Ledger

DOMAIN = "example.org"
ORIGIN = f"{DOMAIN}/ledger"
STREAM = "/services/production/payment-service"
NOW = 1_800_000_000
PATIENCE = 20.0  # seconds until a test that waits has failed


UNFIT = {"HBK-705", "HBK-715", "HBK-716"}  # codes for what cannot be recorded


def event(number: int = 0, **fields: object) -> Event:
    base = Event(id=uuid7(), type="order.paid", stream=STREAM, time_ns=NOW * 10**9 + number, data={"number": number})
    return msgspec.structs.replace(base, **fields) if fields else base


def events(count: int, **fields: object) -> list[Event]:
    return [event(number, **fields) for number in range(count)]


def unbounded(one: Event) -> tuple[bytes, bytes]:
    """The clear parts of an event, whatever is in it: readers have to stand what was never checked."""
    names = [name for name in Meta.__struct_fields__ if name not in {"id", "time"}]
    meta = Meta(id=one.id.hex(), time=one.time_ns, **{name: getattr(one, name) for name in names})
    return msgspec.json.encode(meta), msgspec.json.encode(dict(one.data))


def entry(position: int, *, version: int | None = None, stream: str = STREAM, **fields: object) -> Entry:
    """An entry as the ledger would make it, or as one would that bounds no text."""
    one = event(position, stream=stream, **fields)
    meta, public = unbounded(one)
    at = position + 1 if version is None else version
    leaf = encode_leaf(position, one.time_ns, at, sha256(meta).digest(), sha256(public).digest())
    return Entry(position, one.id, stream, one.type, at, leaf, meta, public)


def append(*entries: Entry, log: str = ORIGIN, expected: int | None = None, epoch: int = 0) -> Append:
    start = entries[0].position if expected is None else expected
    return Append(log, start, entries, Head(start + len(entries), b"f" * 32, b"checkpoint", epoch))


class Book:
    """A ledger on a SQLite file, and what it takes to open both again."""

    def __init__(self, directory: Path, signer: SigningKey | None = None) -> None:
        self.path = directory / "log.db"
        self.signer = signer or SigningKey.generate()
        self.open()

    def open(self) -> None:
        self.store = SqliteStore(self.path)
        self.ledger = Ledger(self.store, self.signer, ORIGIN)

    def write(self, *taken: Event) -> list[int | None]:
        return [receipt.position for receipt in self.ledger.append_batch(taken).result(PATIENCE)]

    def close(self) -> None:
        self.ledger.close()
        self.store.close()


class Shelf:
    """A recorder that keeps what it is given; answers at once, or when told to."""

    def __init__(self, *, answering: bool = True) -> None:
        self.taken: list[Event] = []
        self.waiting: list[tuple[Event, Future[Receipt]]] = []
        self.offers = 0
        self.closed = False
        self._answering = answering
        self._lock = threading.Lock()

    def submit(self, event: Event) -> "Future[Receipt]":
        future: Future[Receipt] = Future()
        with self._lock:
            self.taken.append(event)
            if not self._answering:
                self.waiting.append((event, future))
                return future
        future.set_result(Receipt(event.id, len(self.taken) - 1))
        return future

    def offer(self, event: Event | Draft) -> "Future[Receipt] | None":
        self.offers += 1
        self.submit(made(event))
        return None

    def answer(self) -> None:
        for event, future in self.waiting:
            future.set_result(Receipt(event.id, 0))

    def close(self, timeout: float = 10.0) -> None:
        assert timeout > 0
        self.closed = True


class Producer:
    """A workload with an SVID, signing batches.

    Args:
        authority: who issued it.
        account: its service account.
    """

    def __init__(self, authority: CertificateAuthority, account: str = "payment-service") -> None:
        me = SpiffeId.service(DOMAIN, "production", account)
        self.key = WorkloadKey.generate()
        self.svid = authority.issue(self.key.request(me), me, ttl=3600.0, clock=ManualClock(NOW))
        self.chain = self.svid.chain

    def sign(self, taken: Sequence[Event], *, time_ns: int = NOW * 10**9 + 10**9) -> bytes:
        return encode_batch(self.chain, time_ns, taken, self.key.sign)


def certificate_authority() -> CertificateAuthority:
    return CertificateAuthority.create(DOMAIN, clock=ManualClock(NOW))
