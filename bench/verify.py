"""Auditing a log: all of it, what was added since the last time, and one entry by its proof.

Time is that of the processor, of one core; nothing here writes. The limit is what no verifier in this interpreter can
do without: reading every row, and the four SHA-256 of each entry (two parts, leaf, node).
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

from bench.harness import Progress, Row, at_least, at_most, interleave
from bench.ledger import events
from hauberk.adapters.audited import AuditedFile
from hauberk.adapters.sqlite import SqliteStore
from hauberk.core.event import Event
from hauberk.core.ids import uuid7
from hauberk.crypto.note import LogKey
from hauberk.crypto.signing import SigningKey
from hauberk.records.ledger import Ledger
from hauberk.records.log_policy import LogPolicy
from hauberk.records.receipt import Shown, verify_receipt, write_receipt
from hauberk.records.statement import Producer
from hauberk.records.verify import State, verify_since, verify_store

BATCH = 1_000
ENTRIES = 100_000  # of the logs that are verified in turns
LARGE = 1_000_000
ADDED = 1_000
STREAMS = 10_000  # of the large log
ROUNDS = 7
PROOFS = 200
WAITING = 4  # batches under way
LOG = "bench/ledger"
_random = Random(4)  # noqa: S311  # which stream, no secret
SIGNER = SigningKey(b"log key of the bench, no secret.")


def small(count: int) -> list[Event]:
    """What an application records: short, in many streams."""
    now = time.time_ns()
    return [
        Event(
            id=uuid7(), type="shop.order.placed.v1", stream=f"/streams/order-{_random.randrange(STREAMS)}", time_ns=now,
            actor="5f3c9b1e7a2d4c60", data={"total": number},
        )
        for number in range(count)
    ]  # fmt: skip


def _append(path: Path, count: int, make: Callable[[int], list[Event]], producer: Producer | None = None) -> str:
    """Append to a log and return its key."""
    with closing(SqliteStore(path)) as store:
        ledger = Ledger(store, SIGNER, LOG, producer=producer)
        waiting = []
        for _ in range(count // BATCH):
            waiting.append(ledger.append_batch(make(BATCH)))
            if len(waiting) > WAITING:
                waiting.pop(0).result()
        for one in waiting:
            one.result()
        key = ledger.verifier
        ledger.close()
    return key


def _rate(path: Path, key: str) -> Callable[[], float]:
    """Return what gives entries per second of one core."""

    def case() -> float:
        with closing(AuditedFile(path)) as store:
            started = time.process_time()
            report = verify_store(store, key)
            return report.size / (time.process_time() - started)

    return case


def _limit(path: Path) -> Callable[[], float]:
    """Return what gives the rate at which rows are read and hashed, and nothing is looked at."""

    def case() -> float:
        with closing(sqlite3.connect(path)) as database:
            started, count = time.process_time(), 0
            rows = database.execute("SELECT * FROM entry WHERE log = ? AND position >= 0 ORDER BY position", (LOG,))
            while page := rows.fetchmany(256):
                count += len(page)
                for column in (7, 8):
                    [sha256(row[column]).digest() for row in page]
                hashes = [sha256(b"\x00" + row[6]).digest() for row in page]
                [sha256(b"\x01" + one + one).digest() for one in hashes]
            return count / (time.process_time() - started)

    return case


def _verifying(directory: Path) -> list[Row]:
    plain, short, stated = directory / "plain.db", directory / "short.db", directory / "stated.db"
    key = _append(plain, ENTRIES, events)
    _append(short, ENTRIES, small)
    _append(stated, ENTRIES, events, Producer.of_key(SigningKey.generate()))
    cases = {
        "plain": _rate(plain, key), "limit": _limit(plain), "short": _rate(short, key), "stated": _rate(stated, key),
    }  # fmt: skip
    found = interleave(cases, ROUNDS)
    share, cost = found["plain"].over(found["limit"]), found["stated"].over(found["plain"])
    return [
        at_least(
            "ledger.verify", found["plain"].high, 300_000, "entries/s",
            f"of one core; {found['plain'].note()}; reading and hashing alone {found['limit'].high:.3g}",
        ),
        Row("ledger.verify.limit", share.median, "x", note=f"of reading and hashing alone; {share.note('x')}"),
        Row("ledger.verify.short", found["short"].high, "entries/s", note=f"{STREAMS} streams, short events"),
        Row("ledger.verify.stated", cost.median, "x", note=f"with a statement per {BATCH} entries; {cost.note('x')}"),
    ]  # fmt: skip


def _since(path: Path, key: str, state: Path) -> tuple[float, int]:
    """Return processor seconds of one audit from a state file on, and what it was about."""
    started = time.process_time()
    with closing(AuditedFile(path)) as store:
        known = State.parse(state.read_bytes()) if state.exists() else None
        report, after = verify_since(store, key, known)
        state.with_suffix(".next").write_bytes(after.encode())
    return time.process_time() - started, report.size - report.start


def _auditing(directory: Path) -> list[Row]:
    path, state = directory / "large.db", directory / "state"
    key = _append(path, LARGE, small)
    whole, _ = _since(path, key, state)
    state.with_suffix(".next").replace(state)
    _append(path, ADDED, small)
    taken = sorted(_since(path, key, state)[0] for _ in range(ROUNDS))
    added = _since(path, key, state)[1]
    ratio = whole / taken[ROUNDS // 2]
    note = f"{added} on {LARGE}: {taken[ROUNDS // 2] * 1000:.3g} ms beside {whole:.3g} s; state {_kilobytes(state)} kB"
    return [at_least("ledger.audit", ratio, 100, note=note), *_proving(path, key)]


def _kilobytes(path: Path) -> int:
    return path.stat().st_size // 1000


def _proving(path: Path, key: str) -> Sequence[Row]:
    policy, logs = LogPolicy(), [LogKey.parse(key)]
    with closing(SqliteStore(path)) as store:
        ledger = Ledger(store, SIGNER, LOG)
        made = []
        for position in range(0, LARGE, LARGE // PROOFS):
            entry = next(ledger.entries(after=position - 1, limit=1))
            made.append((write_receipt(ledger.proof(position)), Shown.of(entry)))
        ledger.close()
    took = []
    for text, shown in made:
        started = time.process_time()
        verify_receipt(text, shown, policy, logs=logs)
        took.append(time.process_time() - started)
    size = max(len(text.encode()) for text, _ in made)
    return [
        at_most("ledger.proof.size", size, 1_200, "bytes", f"a receipt at {LARGE} entries"),
        at_most("ledger.proof.verify", sorted(took)[PROOFS // 2] * 1e6, 100, "us", "its checkpoint seen before"),
    ]


def run(progress: Progress) -> list[Row]:
    """Measure full and incremental audits, and proofs."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        progress("verifying")
        rows = _verifying(directory)
        progress(f"auditing {ADDED} entries on {LARGE}")
        return rows + _auditing(directory)
