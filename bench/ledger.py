"""The ledger beside plain SQLite: the same rows, `synchronous=FULL`, a thousand per transaction.

The ledger always has one batch waiting while it writes another, as it has whenever more than one caller records.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import Progress, Row, at_least, interleave
from hauberk.adapters.sqlite import SCHEMA, SqliteStore
from hauberk.core.event import Event
from hauberk.core.ids import uuid7
from hauberk.crypto.signing import SigningKey
from hauberk.records.ledger import Ledger

BATCH = 1_000
BATCHES = 20
ROUNDS = 15
SINGLES = 200


def events(count: int) -> list[Event]:
    """What a service records for an allowed request."""
    return [
        Event(
            id=uuid7(),
            type="request.allowed",
            stream="/services/production/payment-service",
            time_ns=time.time_ns(),
            actor="spiffe://example.org/ns/production/sa/order-service",
            outcome="allow",
            rule="ns[production]-policy[orders-may-pay]-rule[0]",
            digest="5" * 64,
            data={"method": "POST", "path": f"/api/payments/{number}"},
        )
        for number in range(count)
    ]


def _ours(directory: Path, numbers: list[int]) -> Callable[[], float]:
    def case() -> float:
        numbers.append(len(numbers))
        store = SqliteStore(directory / f"ours-{len(numbers)}.db")
        ledger = Ledger(store, SigningKey.generate(), "bench/ledger")
        batches = [events(BATCH) for _ in range(BATCHES)]
        started = time.perf_counter()
        waiting = ledger.append_batch(batches[0])
        for batch in batches[1:]:  # the next batch is handed over while the last one is written
            following = ledger.append_batch(batch)
            waiting.result()
            waiting = following
        waiting.result()
        took = time.perf_counter() - started
        ledger.close()
        store.close()
        return BATCH * BATCHES / took

    return case


def _plain(directory: Path, schema: str, rows: list[tuple[object, ...]], *, many: int = 1) -> Callable[[], float]:
    numbers: list[int] = []
    statement = "INSERT INTO entry VALUES " + ",".join([f"({','.join('?' * len(rows[0]))})"] * many)  # noqa: S608  # constants

    def case() -> float:
        numbers.append(0)
        path = directory / f"plain-{len(numbers)}-{hash(schema) & 0xFFFF}-{many}.db"
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(schema)
        started = time.perf_counter()
        for at in range(0, len(rows), BATCH):
            database.execute("BEGIN IMMEDIATE")
            batch = rows[at : at + BATCH]
            if many == 1:
                database.executemany(statement, batch)
            for first in range(0, BATCH, many) if many > 1 else ():
                database.execute(statement, [value for row in batch[first : first + many] for value in row])
            database.execute("COMMIT")
        took = time.perf_counter() - started
        database.close()
        return len(rows) / took

    return case


def _rows(directory: Path) -> list[tuple[object, ...]]:
    """The very rows that the ledger writes."""
    store = SqliteStore(directory / "rows.db")
    ledger = Ledger(store, SigningKey.generate(), "bench/ledger")
    for _ in range(BATCHES):
        ledger.append_batch(events(BATCH)).result()
    ledger.close()
    store.close()
    database = sqlite3.connect(directory / "rows.db")
    found = database.execute("SELECT * FROM entry").fetchall()
    database.close()
    return found


def _single(directory: Path) -> float:
    """Milliseconds for one acknowledged event on an idle ledger."""
    store = SqliteStore(directory / "single.db")
    ledger = Ledger(store, SigningKey.generate(), "bench/ledger")
    some = events(SINGLES)
    started = time.perf_counter()
    for event in some:
        ledger.submit(event).result()
    took = time.perf_counter() - started
    ledger.close()
    store.close()
    return took / SINGLES * 1000


def run(progress: Progress) -> list[Row]:
    """Measure appends beside plain inserts, and single appends."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        progress("collecting the rows")
        rows = _rows(directory)
        bare = (
            "CREATE TABLE entry (log, position, id, stream, type, version, leaf, meta, public, sealed, statement,"
            " PRIMARY KEY (log, position)) WITHOUT ROWID"
        )
        progress("appending beside plain inserts")
        found = interleave(
            {
                "ours": _ours(directory, []),
                "same": _plain(directory, SCHEMA, rows),
                "many": _plain(directory, SCHEMA, rows, many=125),
                "bare": _plain(directory, bare, rows),
            },
            ROUNDS,
        )
        ours = found["ours"]
        beside = ours.over(found["same"])
        return [
            at_least(
                "ledger.append",
                beside.median,
                0.7,
                note=f"of plain inserts into the same table and indexes; {beside.note('x')}",
            ),
            Row(
                "ledger.append.many",
                ours.over(found["many"]).median,
                "x",
                note="of inserts of 125 rows per statement, much as we do it",
            ),
            Row("ledger.append.bare", ours.over(found["bare"]).median, "x", note="of plain inserts without indexes"),
            Row("ledger.rate", ours.median, "events/s", note=ours.note("events/s")),
            Row("ledger.single", _single(directory), "ms", note="one event at a time"),
        ]
