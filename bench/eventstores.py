"""Our records beside other event stores: one event per call, many callers, durable when the call returns.

Each at its best, in turn in one run, on the disk whose speed is printed beside. Ours is measured twice. `ledger` is the
ledger called by coroutines: a field is sealed under the key of the person it is about, the tree is extended, the
checkpoint signed. `store` is a runtime's event store with all that ships: policy decides each append, the service
signs its batch, the mark is raised. `eventsourcing` runs with its cipher on SQLite, with whichever number of callers
suits it best. UmaDB is a Rust server; it is called over loopback, which is how it is used. Batches are compared
with plain inserts of the very rows that the ledger wrote.
"""

import asyncio
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import umadb
import uvloop
from eventsourcing.application import Application
from eventsourcing.cryptography import AESCipher

from bench.account import Account
from bench.disk import fdatasyncs
from bench.harness import Progress, Row, Spread, at_least, interleave
from hauberk import Runtime
from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.mark import FileMark
from hauberk.adapters.sqlite import SCHEMA, SqliteStore
from hauberk.core.config import load
from hauberk.core.event import Event as Envelope
from hauberk.core.event import Private
from hauberk.core.ids import uuid7
from hauberk.core.principal import Kind, Principal
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.signing import SigningKey
from hauberk.records.hidden import Pii, Subject
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from hauberk.records.statement import Producer
from hauberk.records.store import EventStore
from hauberk.records.turn import InTurn, Turn
from hauberk.records.typed import Event

CALLERS = 256
WRITERS = 64
EACH = 40  # events per caller
PEER = 1_000  # events of the library per round: it takes some hundred microseconds for one
UMADB_EACH = 100
SUBJECTS = 100
ROWS = 20_000
ROUNDS = 7
BATCHES = (100, 1_000)
TEXT = "Somewhere Street 7, 12345 Somewhere"
ME = Principal(Kind.WORKLOAD, "spiffe://example.org/ns/default/sa/default")
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: records, namespace: default}
spec:
  rules:
  - from: [{source: {principals: [example.org/ns/default/sa/default]}}]
    to: [{operation: {methods: [append], paths: ["/streams/account-*"]}}]
"""
_directories = count()


class Deposited(Event, type="bench.account.deposited.v1"):
    """Somebody paid something in."""

    owner: Subject
    address: Pii[str]
    amount: str


def _fresh(directory: Path) -> Path:
    path = directory / str(next(_directories))
    path.mkdir()
    return path


@contextmanager
def _runtime(directory: Path) -> Iterator[Runtime]:
    path = _fresh(directory)
    (path / "policy.yaml").write_text(POLICY)
    runtime = Runtime.embedded(path / "state", policies=path / "policy.yaml", config=load(environ={}))
    try:
        yield runtime
    finally:
        runtime.close()


def _store(directory: Path, callers: int) -> Callable[[], float]:
    """Coroutines that each append one event after the other to streams of their own."""

    async def write(store: EventStore, number: int, each: int) -> None:
        for at in range(each):
            one = Deposited(owner=f"person-{number % SUBJECTS}", address=TEXT, amount=str(at))
            await store.append(f"account-{number}", [one], actor=ME)

    async def all_of_them(store: EventStore, each: int) -> None:
        await asyncio.gather(*(write(store, number, each) for number in range(callers)))

    def case() -> float:
        with _runtime(directory) as runtime:
            store = runtime.events
            _run(all_of_them(store, 2))  # keys of people are made once
            started = time.perf_counter()
            _run(all_of_them(store, EACH))
            return callers * EACH / (time.perf_counter() - started)

    return case


@contextmanager
def _ledger(directory: Path, *, whole: bool = False) -> Iterator[tuple[Ledger, SqliteStore]]:
    """Yield a ledger with keys of people; the `whole` of it signs what it records and has a high-water mark."""
    path = _fresh(directory)
    with ExitStack() as taken:
        inner = taken.enter_context(closing(SqliteStore(path / "ledger.db")))
        keyring = Keyring(FileKeySource(path / "keys"))
        rows = AuthenticRows(inner, keyring)
        mark = taken.enter_context(closing(FileMark(path / "mark"))) if whole else None
        ledger = Ledger(
            rows,
            SigningKey.generate(),
            "bench/ledger",
            keys=SubjectKeys(rows, keyring),
            producer=Producer.of_key(SigningKey.generate()) if whole else None,
            mark=mark,
        )
        taken.callback(ledger.close)
        yield ledger, inner


def _envelope(number: int) -> Envelope:
    return Envelope(
        id=uuid7(), type="bench.account.deposited.v1", stream=f"/streams/account-{number % CALLERS}",
        time_ns=time.time_ns(), actor=ME.id, outcome="ok", data={"amount": "1"},
        private=(Private("address", f"person-{number % SUBJECTS}", b'"' + TEXT.encode() + b'"'),),
    )  # fmt: skip


class _Turns:
    """Hands one event per call to a ledger, as the audit log does: what one turn of the loop brings is one job."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn: Turn | None = None

    def append(self, event: Envelope) -> InTurn:
        """Take one event."""
        index = None if self._turn is None else self._turn.add(event)
        if self._turn is None or index is None:
            loop = asyncio.get_running_loop()
            self._turn, index = Turn(loop, self._ledger.append_batch, event), 0
            loop.call_soon(self._turn.send)
        return InTurn(self._turn, index)


def _ours(directory: Path, callers: int) -> Callable[[], float]:
    """Coroutines that each append one event after the other."""

    async def write(turns: _Turns, number: int, each: int) -> None:
        for _ in range(each):
            await turns.append(_envelope(number))

    async def all_of_them(ledger: Ledger, each: int) -> None:
        turns = _Turns(ledger)
        await asyncio.gather(*(write(turns, number, each) for number in range(callers)))

    def case() -> float:
        with _ledger(directory) as (ledger, _):
            _run(all_of_them(ledger, 2))
            started = time.perf_counter()
            _run(all_of_them(ledger, EACH))
            return callers * EACH / (time.perf_counter() - started)

    return case


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _threads(callers: int, work: Callable[[int], object]) -> float:
    """Return how long so many threads take."""
    with ThreadPoolExecutor(callers) as pool:
        for _ in pool.map(lambda _: None, range(callers)):  # all of them exist
            pass
        started = time.perf_counter()
        for _ in pool.map(work, range(callers)):
            pass
        return time.perf_counter() - started


def _eventsourcing(directory: Path, callers: int, environ: Callable[[Path], dict[str, str]]) -> Callable[[], float]:
    """The library with aggregates of one event, made beforehand: what is measured is mapping, sealing and storing."""

    def case() -> float:
        application = Application[Any](env=environ(_fresh(directory)))
        accounts = [Account(TEXT) for _ in range(PEER)]
        for one in accounts:
            one.deposit(Decimal(1))
            one.collect_events()  # as if they had been opened long ago
            one.deposit(Decimal(2))

        def work(number: int) -> None:
            for one in accounts[number::callers]:
                application.save(one)

        try:
            return PEER / _threads(callers, work)
        finally:
            application.close()

    return case


def _sqlite(path: Path) -> dict[str, str]:
    return {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path / "events.db"),
        "SQLITE_LOCK_TIMEOUT": "60", "CIPHER_TOPIC": "eventsourcing.cryptography:AESCipher",
        "CIPHER_KEY": AESCipher.create_key(32),
    }  # fmt: skip


def _on_ours(path: Path) -> dict[str, str]:
    return {
        "PERSISTENCE_MODULE": "hauberk.integrations.eventsourcing",
        "HAUBERK_EVENTSOURCING_STORE": f"sqlite:{path / 'events.db'}",
        "HAUBERK_EVENTSOURCING_KEYS": f"file:{path / 'keys'}",
    }


@contextmanager
def _umadb(directory: Path) -> Iterator[umadb.Client]:
    """Start its server on loopback and yield a client; one that all writers share is the fastest it has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("umadb")), "--listen", f"127.0.0.1:{port}"]
    server = subprocess.Popen(
        [*command, "--db-path", str(_fresh(directory) / "uma.db")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield _connected(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()


def _connected(url: str) -> umadb.Client:
    until = time.monotonic() + 10
    while True:
        try:
            client = umadb.Client(url)
            client.head()
        except umadb.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return client


def _theirs(client: umadb.Client) -> Callable[[], float]:
    def work(number: int) -> None:
        for _ in range(UMADB_EACH):
            client.append([umadb.Event("bench.account.deposited.v1", TEXT.encode(), tags=[f"account-{number}"])])

    return lambda: WRITERS * UMADB_EACH / _threads(WRITERS, work)


def _batched(directory: Path, batch: int, *, whole: bool = False) -> Callable[[], float]:
    """Batches handed over while the one before is being written, as happens whenever more than one caller records."""

    def case() -> float:
        batches = [[_envelope(at + number) for number in range(batch)] for at in range(0, ROWS, batch)]
        with _ledger(directory, whole=whole) as (ledger, _):
            ledger.append_batch([_envelope(number) for number in range(SUBJECTS)]).result()
            started = time.perf_counter()
            waiting = ledger.append_batch(batches[0])
            for one in batches[1:]:
                following = ledger.append_batch(one)
                waiting.result()
                waiting = following
            waiting.result()
            return ROWS / (time.perf_counter() - started)

    return case


def _rows(directory: Path) -> list[tuple[object, ...]]:
    """Return the very rows that the ledger writes."""
    with _ledger(directory) as (ledger, store):
        for at in range(0, ROWS, 1_000):
            ledger.append_batch([_envelope(at + number) for number in range(1_000)]).result()
        with closing(sqlite3.connect(store.path)) as database:
            return database.execute("SELECT * FROM entry").fetchall()


def _plain(directory: Path, rows: Sequence[tuple[object, ...]], batch: int) -> Callable[[], float]:
    """Plain inserts into the same table with the same indexes, `synchronous=FULL`."""
    statement = f"INSERT INTO entry VALUES ({','.join('?' * len(rows[0]))})"  # noqa: S608  # places

    def case() -> float:
        with closing(sqlite3.connect(_fresh(directory) / "plain.db", isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.executescript(SCHEMA)
            started = time.perf_counter()
            for at in range(0, len(rows), batch):
                database.execute("BEGIN IMMEDIATE")
                database.executemany(statement, rows[at : at + batch])
                database.execute("COMMIT")
            return len(rows) / (time.perf_counter() - started)

    return case


def _best(directory: Path, environ: Callable[[Path], dict[str, str]]) -> int:
    """Return the number of callers that suits that library best on one of its stores."""
    found = {callers: _eventsourcing(directory, callers, environ)() for callers in (1, 4, 32, CALLERS)}
    return max(found, key=lambda callers: found[callers])


def run(progress: Progress) -> list[Row]:
    """Measure ours beside the others."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as taken:
        directory = Path(name)
        progress("how many callers suit eventsourcing")
        callers = {name: _best(directory, environ) for name, environ in (("peer", _sqlite), ("adapter", _on_ours))}
        client = taken.enter_context(_umadb(directory))
        progress("one event per call")
        single = interleave(
            {
                "disk": lambda: fdatasyncs(directory),
                "ours": _ours(directory, CALLERS),
                "store": _store(directory, CALLERS),
                "peer": _eventsourcing(directory, callers["peer"], _sqlite),
                "adapter": _eventsourcing(directory, callers["adapter"], _on_ours),
                "writers": _ours(directory, WRITERS),
                "umadb": _theirs(client),
            },
            ROUNDS,
        )
        progress("batches beside plain inserts")
        rows = _rows(directory)
        cases: dict[str, Callable[[], float]] = {"disk": lambda: fdatasyncs(directory)}
        for batch in BATCHES:
            cases[f"plain {batch}"] = _plain(directory, rows, batch)
            cases[f"ours {batch}"] = _batched(directory, batch)
            cases[f"whole {batch}"] = _batched(directory, batch, whole=True)
        batched = interleave(cases, ROUNDS)
    return [*_single_rows(single, callers), *_batched_rows(batched)]


def _disk(found: dict[str, Spread]) -> str:
    return f"disk {found['disk'].note('fdatasync/s')}"


def _single_rows(found: dict[str, Spread], callers: dict[str, int]) -> list[Row]:
    ours, store, peer, umadb_ = found["ours"], found["store"], found["peer"], found["umadb"]
    beside, writers = ours.over(peer), found["writers"].over(umadb_)
    disk = _disk(found)
    notes = {
        "calls": f"of eventsourcing, cipher, SQLite, its best {callers['peer']} callers; {beside.note('x')}; {disk}",
        "adapter": f"an application of that library on our store ({callers['adapter']} callers), of it on its own",
        "umadb": f"of UmaDB, {WRITERS} one-event writers, loopback; {writers.note('x')}; {disk}",
    }  # fmt: skip
    return [
        at_least("records.calls", beside.median, 10, note=notes["calls"]),
        Row("records.calls.store", store.over(peer).median, "x", note="through a runtime's event store, everything on"),
        Row("records.calls.adapter", found["adapter"].over(peer).median, "x", note=notes["adapter"]),
        Row("records.calls.rate", ours.median, "events/s", note=f"{CALLERS} callers; {ours.note()}; {disk}"),
        Row("records.calls.store.rate", store.median, "events/s", note=f"{CALLERS} callers; {store.note()}"),
        Row("records.calls.peer.rate", peer.median, "events/s", note=peer.note()),
        at_least("records.umadb", writers.median, 1, note=notes["umadb"]),
        Row("records.umadb.rate", umadb_.median, "events/s", note=umadb_.note()),
    ]


def _batched_rows(found: dict[str, Spread]) -> list[Row]:
    rows = []
    for batch, bar in zip(BATCHES, (0.6, 0.75), strict=True):
        plain = found[f"plain {batch}"]
        ours, whole = found[f"ours {batch}"].over(plain), found[f"whole {batch}"].over(plain)
        name, rate = f"records.batch.{batch}", found[f"ours {batch}"].median
        note = f"of plain inserts of the same rows, {batch} a commit, sealed; {ours.note('x')}; {_disk(found)}"
        rows += [
            at_least(name, ours.median, bar, note=note),
            Row(f"{name}.whole", whole.median, "x", note="with a producer's signature and a high-water mark"),
            Row(f"{name}.rate", rate, "events/s", note=f"plain {plain.median:.0f}"),
        ]
    return rows
