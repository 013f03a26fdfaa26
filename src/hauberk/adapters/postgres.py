"""The store on PostgreSQL: same tables as the embedded one, any number of processes, one chain.

`commit` is one READ COMMITTED transaction that takes its locks in this order, so that no two writers wait for each
other in a circle: the head of the log (`FOR UPDATE`), the rows in key order, the revision. Whoever has the head is the
only one who appends; who comes after finds another size there and writes nothing. Entries go in by binary COPY. The
call returns after COMMIT; when the connection is lost during COMMIT nobody can tell what came of it, and
`OutcomeUnknown` says so. Lost before, nothing was written.

Absence needs a lock of its own, as there is no row to lock: a write that relies on it and leaves the row absent holds
an advisory lock alone, which every other write of rows shares.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from time import time
from typing import Any, LiteralString, TypeVar

from psycopg.types.numeric import Int8

from hauberk.adapters._write import check_restored
from hauberk.adapters.postgres_connect import STRICT, Connection, Pool, Target, Terms, mapped
from hauberk.adapters.postgres_schema import check_schema
from hauberk.adapters.postgres_scrub import scrub_target
from hauberk.adapters.postgres_write import ENTRY, HEAD, RACES, apply, finish, insert_missing
from hauberk.core.event import Entry
from hauberk.core.ports import END, Head, Row, Write
from hauberk.errors import RecordsError

CONNECTIONS = 8  # of one process; each is a process of the server
_LIVE = "(expires IS NULL OR expires > %s)"
_PAGE = 1_000  # entries or rows fetched at once; no connection is held between two pages
_ATTEMPTS = 20  # of a write that lost a race for a row that was not there; each time somebody else got ahead
_SWEEP_SECONDS = 60.0  # between two sweeps of expired rows, and how long they stay at least
_SWEPT_AT_ONCE = 1_000
_PRUNED = 10_000  # positions in one statement
_T = TypeVar("_T")


class PostgresStore:
    """Implements `core.ports.Store` on one database.

    Args:
        dsn: `postgresql://...`; never shown.
        now: Unix seconds, for expiry; all processes on one database should agree on it.
        connections: how many at most.
        terms: what each session is held to.

    Raises:
        ConfigError: HBK-901 it is no address, or leads to another machine without verified TLS.
        RecordsError: HBK-703 the server cannot be reached, HBK-706 it may lose what it acknowledges, HBK-724 the tables
            are missing, or of another release.
    """

    def __init__(
        self, dsn: str, *, now: Callable[[], float] = time, connections: int = CONNECTIONS, terms: Terms = STRICT
    ) -> None:
        self._target = Target(dsn, terms)
        self._pool = Pool(self._target, connections)
        self._now = now
        self._swept = 0.0  # when expired rows were deleted last, Unix seconds
        try:
            self._run(check_schema)
        except RecordsError:
            self._pool.close()
            raise

    def __repr__(self) -> str:
        return "PostgresStore()"

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped(self._target.password)

    def _run(self, work: Callable[[Connection], _T]) -> _T:
        with self._mapped():
            return self._pool.run(work)

    # writing

    def commit(self, write: Write) -> int:
        """Apply `write` in one transaction; see `core.ports.Store`."""
        number = self._write(lambda connection: apply(connection, write, self._now()))
        self._sweep()
        return number

    def _write(self, work: Callable[[Connection], _T]) -> _T:
        """Return what `work` does in one transaction, tried again when it lost a race."""
        if self._target.terms.readonly:
            raise RecordsError("HBK-706", "the store was opened for reading only")

        def once(connection: Connection) -> _T:
            result = work(connection)
            finish(connection, self._target.terms.statement_seconds)
            return result

        with self._mapped():
            for _ in range(_ATTEMPTS):
                with suppress(*RACES):
                    return self._pool.run(once)
            raise RecordsError("HBK-703", "others got ahead each time")

    def _sweep(self) -> None:
        """Now and then delete the rows that expired long ago; they are as good as absent already."""
        now = self._now()
        if now < self._swept + _SWEEP_SECONDS:
            return
        self._swept = now
        query = (
            "DELETE FROM hauberk.row WHERE ctid = ANY(ARRAY(SELECT ctid FROM hauberk.row WHERE expires <= %s LIMIT %s"
            " FOR UPDATE SKIP LOCKED))"
        )
        with suppress(RecordsError):  # the write itself has been done
            self._run(lambda connection: connection.execute(query, (now - _SWEEP_SECONDS, _SWEPT_AT_ONCE)))

    # reading

    def _select(self, query: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._run(lambda connection: connection.execute(query, values, binary=True).fetchall())

    def head(self, log: str) -> Head:
        """Return the head of `log`."""
        rows = self._select(HEAD, (log,))
        return Head(*rows[0]) if rows else Head()

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
        """Yield entries in order or backwards, read page by page."""
        where: LiteralString = "log = %s"
        values: list[object] = [log]
        if stream is not None:
            where += " AND stream = %s"
            values.append(stream)
        if kind is not None:
            where += " AND type = %s"
            values.append(kind)
        return self._entries("position", where, values, (after, before), limit, backward=backward)

    def stream(
        self, log: str, stream: str, *, above: int = 0, below: int = END, limit: int = 1000, backward: bool = False
    ) -> Iterator[Entry]:
        """Yield entries of one stream in order or backwards, read page by page."""
        where = "log = %s AND stream = %s"
        return self._entries("version", where, [log, stream], (above, below), limit, backward=backward)

    def _entries(
        self,
        column: LiteralString,
        where: LiteralString,
        values: Sequence[object],
        between: tuple[int, int],
        limit: int,
        *,
        backward: bool,
    ) -> Iterator[Entry]:
        query = f"SELECT {ENTRY} FROM hauberk.entry WHERE {where} AND {column} > %s AND {column} < %s ORDER BY {column}"  # noqa: S608  # constants
        query += " DESC LIMIT %s" if backward else " LIMIT %s"
        low, high = between
        while limit > 0:
            wanted = min(limit, _PAGE)
            page = [Entry(*row) for row in self._select(query, (*values, Int8(low), Int8(high), Int8(wanted)))]
            yield from page
            if len(page) < wanted:
                return
            limit -= wanted
            last: int = getattr(page[-1], column)
            low, high = (low, last) if backward else (last, high)

    def find(self, log: str, ids: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return the positions of those event ids that are in `log`."""
        query = "SELECT id, position FROM hauberk.entry WHERE log = %s AND id = ANY(%s::bytea[])"
        return dict(self._select(query, (log, list(ids))))

    def versions(self, log: str, streams: Sequence[str]) -> Mapping[str, int]:
        """Return the highest version of each stream that has any."""
        query = (
            "SELECT wanted.stream, last.version FROM unnest(%s::text[]) AS wanted (stream), LATERAL"
            " (SELECT version FROM hauberk.entry WHERE log = %s AND stream = wanted.stream ORDER BY version DESC"
            " LIMIT 1) AS last"
        )
        return dict(self._select(query, (list(streams), log)))

    def tile(self, log: str, level: int, index: int) -> bytes:
        """Return the hashes of a tile."""
        query = "SELECT data FROM hauberk.tile WHERE log = %s AND level = %s AND number = %s"
        rows = self._select(query, (log, Int8(level), Int8(index)))
        if not rows:
            raise RecordsError("HBK-707", "no such tile", level=level, index=index)
        return bytes(rows[0][0])

    def get(self, space: str, key: bytes) -> Row | None:
        """Return a live row or None."""
        query = f"SELECT key, value, revision, expires FROM hauberk.row WHERE space = %s AND key = %s AND {_LIVE}"  # noqa: S608  # constants
        rows = self._select(query, (space, key, self._now()))
        return Row(*rows[0]) if rows else None

    def scan(self, space: str, prefix: bytes = b"", *, after: bytes = b"", limit: int = 1000) -> Iterator[Row]:
        """Yield live rows in key order, read page by page."""
        end = _above(prefix)
        query = f"SELECT key, value, revision, expires FROM hauberk.row WHERE space = %s AND key >= %s AND {_LIVE}"  # noqa: S608  # constants
        query += " AND key > %s AND key < %s ORDER BY key LIMIT %s" if end else " AND key > %s ORDER BY key LIMIT %s"
        while limit > 0:
            wanted = min(limit, _PAGE)
            bounds = (after, end) if end else (after,)
            page = [Row(*row) for row in self._select(query, (space, prefix, self._now(), *bounds, Int8(wanted)))]
            yield from page
            if len(page) < wanted:
                return
            limit, after = limit - wanted, page[-1].key

    def logs(self) -> list[str]:
        """Return the names of all logs in the database."""
        return [row[0] for row in self._select("SELECT log FROM hauberk.head ORDER BY log", ())]

    # keeping house

    def prune(self, log: str, positions: Sequence[int]) -> int:
        """Delete the entries at these positions but for the last of each stream, in one transaction.

        For `hauberk_retention`.
        """
        query = (
            "DELETE FROM hauberk.entry AS old WHERE log = %s AND position = ANY(%s::bigint[]) AND EXISTS"
            " (SELECT FROM hauberk.entry AS new WHERE new.log = old.log AND new.stream = old.stream"
            " AND new.version > old.version)"
        )

        def work(connection: Connection) -> int:
            connection.execute("BEGIN")
            connection.execute("SET LOCAL statement_timeout = 0")
            parts = (list(positions[at : at + _PRUNED]) for at in range(0, len(positions), _PRUNED))
            return sum(connection.execute(query, (log, part)).rowcount for part in parts)

        return self._write(work)

    def restore(self, log: str, entries: Sequence[Entry]) -> int:
        """Put back entries that were pruned, all in one transaction."""

        def work(connection: Connection) -> int:
            connection.execute("BEGIN")
            rows = connection.execute(HEAD, (log,), binary=True).fetchall()
            check_restored(entries, Head(*rows[0]) if rows else Head())
            return insert_missing(connection, log, entries)

        return self._write(work)

    def scrub(self) -> bool:
        """Rewrite the rows' file and let go of the write-ahead log; see `adapters.postgres_scrub`."""
        self._pool.check_open()
        return scrub_target(self._target)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


def _above(prefix: bytes) -> bytes:
    """Return the first key above every one with this prefix; empty when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b""
