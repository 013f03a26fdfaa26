"""The ledger on PostgreSQL beside plain binary COPY of the very rows it writes, into the same table with its indexes.

All on one server with its default durability (`fsync`, `synchronous_commit = on`), on the disk whose speed is printed
beside. `ours` seals a field of each event, extends the tree, signs a checkpoint per commit and moves the head under its
lock; one batch always waits while another is written. `store` is the store alone, given finished entries.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import LiteralString

import psycopg
from msgspec.structs import astuple, replace

from bench.disk import fdatasyncs
from bench.harness import Progress, Row, Spread, at_least, interleave
from hauberk.adapters.authentic import AuthenticRows
from hauberk.adapters.keys import FileKeySource
from hauberk.adapters.postgres import PostgresStore
from hauberk.adapters.postgres_connect import Target
from hauberk.adapters.postgres_schema import migrate
from hauberk.core.event import Entry, Event, Private
from hauberk.core.ids import uuid7
from hauberk.core.ports import Append, Head, Write
from hauberk.crypto.keyring import Keyring
from hauberk.crypto.signing import SigningKey
from hauberk.records.keys import SubjectKeys
from hauberk.records.ledger import Ledger
from tests.support.postgres_server import Server

ROWS = 20_000
BATCHES = (100, 1_000)
BAR = 0.7
ROUNDS = 7
SUBJECTS = 100
STREAMS = 256
SINGLES = 200
_COPY: LiteralString = "COPY hauberk.entry FROM STDIN (FORMAT BINARY)"
_BARE: LiteralString = "COPY bare FROM STDIN (FORMAT BINARY)"
_TYPES = ("text", "int8", "bytea", "text", "text", "int8", "bytea", "bytea", "bytea", "bytea", "bytea")
_logs = count()


def _event(number: int) -> Event:
    return Event(
        id=uuid7(), type="bench.account.deposited.v1", stream=f"/streams/account-{number % STREAMS}",
        time_ns=time.time_ns(), actor="spiffe://example.org/ns/default/sa/default", outcome="ok", data={"amount": "1"},
        private=(Private("address", f"person-{number % SUBJECTS}", b'"Somewhere Street 7, 12345 Somewhere"'),),
    )  # fmt: skip


class Bench:
    """What the cases share.

    Args:
        dsn: a migrated database.
        directory: for keys.
    """

    def __init__(self, dsn: str, directory: Path) -> None:
        self.dsn = dsn
        self._keyring = Keyring(FileKeySource(directory / "keys"))

    @contextmanager
    def ledger(self) -> Iterator[tuple[Ledger, PostgresStore]]:
        """Yield a ledger on a new log, the keys of all people made."""
        with closing(PostgresStore(self.dsn)) as store:
            rows = AuthenticRows(store, self._keyring)
            keys = SubjectKeys(rows, self._keyring)
            ledger = Ledger(rows, SigningKey.generate(), f"bench/{next(_logs)}", keys=keys)
            ledger.append_batch([_event(number) for number in range(SUBJECTS)]).result()
            yield ledger, store
            ledger.close()

    def rows(self) -> list[Entry]:
        """Return the very entries that the ledger writes."""
        with self.ledger() as (ledger, store):
            for at in range(0, ROWS, 1_000):
                ledger.append_batch([_event(at + number) for number in range(1_000)]).result()
            return list(store.entries(ledger.log, after=SUBJECTS - 1, limit=ROWS))

    def ours(self, batch: int) -> Callable[[], float]:
        """Batches handed over while the one before is being written."""

        def case() -> float:
            batches = [[_event(at + number) for number in range(batch)] for at in range(0, ROWS, batch)]
            with self.ledger() as (ledger, _):
                started = time.perf_counter()
                waiting = ledger.append_batch(batches[0])
                for one in batches[1:]:
                    following = ledger.append_batch(one)
                    waiting.result()
                    waiting = following
                waiting.result()
                return ROWS / (time.perf_counter() - started)

        return case

    def store(self, entries: list[Entry], batch: int) -> Callable[[], float]:
        """Finished entries, a head and no tiles."""

        def case() -> float:
            log = f"store/{next(_logs)}"
            dense = [replace(one, position=at) for at, one in enumerate(entries)]
            with closing(PostgresStore(self.dsn)) as store:
                started = time.perf_counter()
                for at in range(0, ROWS, batch):
                    head = Head(at + batch, b"f" * 320, b"c" * 200)
                    store.commit(Write(Append(log, at, dense[at : at + batch], head)))
                return ROWS / (time.perf_counter() - started)

        return case

    def plain(self, entries: list[Entry], batch: int, query: LiteralString) -> Callable[[], float]:
        """Binary COPY and nothing else."""

        def case() -> float:
            log = f"plain/{next(_logs)}"
            rows = [(log, *astuple(one)) for one in entries]
            with closing(psycopg.connect(self.dsn, autocommit=True)) as connection:
                started = time.perf_counter()
                for at in range(0, ROWS, batch):
                    with connection.transaction(), connection.cursor() as cursor, cursor.copy(query) as copy:
                        copy.set_types(_TYPES)
                        for row in rows[at : at + batch]:
                            copy.write_row(row)
                return ROWS / (time.perf_counter() - started)

        return case

    def single(self) -> float:
        """Milliseconds for one acknowledged event on an idle ledger."""
        with self.ledger() as (ledger, _):
            some = [_event(number) for number in range(SINGLES)]
            started = time.perf_counter()
            for event in some:
                ledger.submit(event).result()
            return (time.perf_counter() - started) / SINGLES * 1000


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """Start a server with data on the disk of this directory; yields the address of a migrated database."""
    made = Server(directory, shared_buffers="128MB", max_wal_size="2GB")
    try:
        made.start()
        migrate(Target(made.dsn()))
        with closing(psycopg.connect(made.dsn(), autocommit=True)) as connection:
            connection.execute("CREATE TABLE bare (LIKE hauberk.entry)")
        yield made.dsn()
    finally:
        made.remove()


def run(progress: Progress) -> list[Row]:
    """Measure batches beside plain COPY, and single events."""
    with tempfile.TemporaryDirectory(prefix="b-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the server is somebody else
        with server(directory) as dsn:
            bench = Bench(dsn, directory)
            progress("collecting the rows")
            entries = bench.rows()
            cases: dict[str, Callable[[], float]] = {"disk": lambda: fdatasyncs(directory)}
            for batch in BATCHES:
                cases[f"plain {batch}"] = bench.plain(entries, batch, _COPY)
                cases[f"ours {batch}"] = bench.ours(batch)
                cases[f"store {batch}"] = bench.store(entries, batch)
                cases[f"bare {batch}"] = bench.plain(entries, batch, _BARE)
            progress("batches beside plain COPY")
            found = interleave(cases, ROUNDS)
            return [*_rows(found), Row("postgres.single", bench.single(), "ms", note="one event at a time")]


def _rows(found: dict[str, Spread]) -> Iterator[Row]:
    disk = f"disk {found['disk'].note('fdatasync/s')}"
    for batch in BATCHES:
        plain, ours = found[f"plain {batch}"], found[f"ours {batch}"]
        beside, name = ours.over(plain), f"postgres.batch.{batch}"
        note = f"of plain binary COPY of the same rows, {batch} a commit, sealed; {beside.note('x')}; {disk}"
        yield at_least(name, beside.median, BAR, note=note)
        store = found[f"store {batch}"].over(plain)
        yield Row(f"{name}.store", store.median, "x", note=f"the store alone; {store.note('x')}")
        bare = ours.over(found[f"bare {batch}"])
        yield Row(f"{name}.bare", bare.median, "x", note="of COPY into a table without indexes")
        yield Row(f"{name}.rate", ours.median, "events/s", note=f"plain {plain.median:.0f}")
