"""The embedded store: one SQLite file, WAL, `synchronous=FULL`, mode 0600.

One connection writes under a lock; readers borrow theirs from a few idle ones. `commit` is one `BEGIN IMMEDIATE`
transaction, so a crash leaves either all of a write or nothing. Entries are unique by event id: the same event cannot
be stored twice.
"""

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from time import time
from typing import Any

from msgspec.structs import astuple

from hauberk.adapters._write import check_append, check_restored, check_row
from hauberk.core.event import Entry
from hauberk.core.ports import END, Append, Check, Delete, Head, Put, Row, Tile, Write
from hauberk.errors import Conflict, RecordsError, Tampered

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS head (log TEXT PRIMARY KEY, size INTEGER, frontier BLOB, checkpoint BLOB, epoch INTEGER)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
  log TEXT, position INTEGER, id BLOB, stream TEXT, type TEXT, version INTEGER, leaf BLOB, meta BLOB, public BLOB,
  sealed BLOB, statement BLOB, PRIMARY KEY (log, position)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS entry_id ON entry (log, id);
CREATE UNIQUE INDEX IF NOT EXISTS entry_stream ON entry (log, stream, version);
CREATE INDEX IF NOT EXISTS entry_type ON entry (log, type);
CREATE TABLE IF NOT EXISTS tile (log TEXT, level INTEGER, number INTEGER, data BLOB, PRIMARY KEY (log, level, number))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS row (space TEXT, key BLOB, value BLOB, revision INTEGER, expires REAL,
  PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS row_expires ON row (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS revision (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER);
INSERT OR IGNORE INTO revision VALUES (1, 0);
"""
BUSY_SECONDS = 30.0  # another process may hold the write lock this long before we give up
_ENTRY = "position, id, stream, type, version, leaf, meta, public, sealed, statement"
_ORDER = {False: "ASC", True: "DESC"}
_ROWS_AT_ONCE = (
    1_024  # rows of one statement: each statement has to get the interpreter lock back; SQLite takes 32,766 values
)
_SWEEP_SECONDS = 60.0  # between two sweeps of expired rows, and how long they stay at least
_IDLE = 8  # reading connections kept open
_CHUNK = 500  # bound variables per query; SQLite's own limit is far higher


@cache
def _values(columns: int, rows: int) -> str:
    """Return the places of so many rows; the first column is parameter 1 in each of them."""
    return ",".join(["(?1," + ",".join("?" * columns) + ")"] * rows)


@contextmanager
def _mapped() -> Iterator[None]:
    """Keep driver exceptions inside."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Conflict("an event id, stream version or position is there already", what="entry") from error
    except sqlite3.ProgrammingError as error:
        raise RecordsError("HBK-706", "the store is closed") from error
    except sqlite3.DatabaseError as error:
        raise RecordsError("HBK-703", str(error)) from error


def _connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    mode = "ro" if readonly else "rwc"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    try:
        if not readonly:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten: keys, above all
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class SqliteStore:
    """Implements `core.ports.Store` on one file.

    Args:
        path: the database file; made with mode 0600 when absent.
        now: Unix seconds, for expiry.
        readonly: open what exists and never write.

    Raises:
        RecordsError: HBK-706 when the file cannot be opened, HBK-703 when it is no database.
    """

    def __init__(self, path: Path | str, *, now: Callable[[], float] = time, readonly: bool = False) -> None:
        self.path = Path(path)
        self._now = now
        self._readonly = readonly
        self._lock = threading.Lock()  # guards _writer
        self._idle: deque[sqlite3.Connection] = deque()  # readers nobody uses; taken and put atomically
        self._closed = False
        self._swept = 0.0  # when expired rows were deleted last, Unix seconds; guarded by _lock
        with _mapped():
            try:
                if not readonly:
                    os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
                self._writer = _connect(self.path, readonly=readonly)
            except (OSError, sqlite3.OperationalError) as error:
                raise RecordsError("HBK-706", "the file cannot be opened", path=str(self.path)) from error
            if not readonly:
                self._prepare()

    def _prepare(self) -> None:
        """Make the tables, or refuse those of another release.

        Raises:
            RecordsError: HBK-724.
        """
        try:
            # One statement, so that both are of one moment: others may be making the tables.
            version, tables = self._writer.execute(
                "SELECT user_version, EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'entry')"
                " FROM pragma_user_version"
            ).fetchone()
            if version != (SCHEMA_VERSION if tables else 0):
                self._writer.close()
                raise RecordsError("HBK-724", "the tables are of another release", found=version, wanted=SCHEMA_VERSION)
            if not tables:  # immediate, so that of several processes that start at once each waits for its turn
                self._writer.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        except sqlite3.Error:
            self._writer.close()
            raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a reading connection; nobody else uses it meanwhile, whatever thread that is in."""
        with _mapped():
            if self._closed:
                raise RecordsError("HBK-706", "the store is closed")
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = _connect(self.path, readonly=True)
            try:
                yield connection
            finally:
                self._take_back(connection)

    def _take_back(self, connection: sqlite3.Connection) -> None:
        if len(self._idle) >= _IDLE:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:  # perhaps only since the look at the others
            self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):  # somebody else takes them too
            while True:
                self._idle.pop().close()

    def commit(self, write: Write) -> int:
        """Apply `write` in one transaction; see `core.ports.Store`."""
        with self._writing():
            if write.append is not None:
                self._append(write.append)
            for row in sorted(write.rows, key=lambda row: (row.space, row.key)):
                self._row(row)
            self._sweep()
            number: int = self._writer.execute("UPDATE revision SET number = number + 1 RETURNING number").fetchall()[
                0
            ][0]
            return number

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction of the writing connection; whatever ends it half way, nothing of it stays."""
        with self._lock, _mapped():
            if self._closed:
                raise RecordsError("HBK-706", "the store is closed")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _append(self, append: Append) -> None:
        check_append(append, _head(self._writer, append.log))
        head, log = append.head, append.log
        self._writer.execute(
            "INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?)",
            (log, head.size, head.frontier, head.checkpoint, head.epoch),
        )
        # The columns after the first are the fields, in their order.
        self._insert("INSERT INTO entry VALUES ", log, append.entries)
        self._insert("INSERT OR REPLACE INTO tile VALUES ", log, append.tiles)

    def _insert(self, statement: str, log: str, rows: Sequence[Entry] | Sequence[Tile]) -> None:
        """Insert rows, many in one statement: `executemany` lets go of the interpreter lock at each row, and beside a
        busy event loop getting it back takes milliseconds, for each row. Powers of two keep the statements few.
        """
        at, many = 0, _ROWS_AT_ONCE
        while at < len(rows):
            while many > len(rows) - at:
                many //= 2
            places = statement + _values(len(rows[0].__struct_fields__), many)
            self._writer.execute(places, [log, *chain.from_iterable(map(astuple, rows[at : at + many]))])
            at += many

    def _sweep(self) -> None:
        """Now and then delete the rows that expired long ago; they are as good as absent already."""
        now = self._now()
        if now >= self._swept + _SWEEP_SECONDS:
            self._writer.execute("DELETE FROM row WHERE expires <= ?", (now - _SWEEP_SECONDS,))
            self._swept = now

    def _row(self, row: Put | Delete | Check) -> None:
        found = _row(self._writer, row.space, row.key, self._now())
        check_row(row, found.revision if found else 0)
        if isinstance(row, Check):
            return
        if isinstance(row, Delete):
            self._writer.execute("DELETE FROM row WHERE space = ? AND key = ?", (row.space, row.key))
            return
        self._writer.execute(
            "INSERT INTO row VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET value = excluded.value,"
            " expires = excluded.expires, revision = revision + 1",
            (row.space, row.key, row.value, row.expires),
        )

    def head(self, log: str) -> Head:
        """Return the head of `log`."""
        with self._reading() as reader:
            return _head(reader, log)

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
        """Yield entries in order or backwards, read in one snapshot."""
        query = "position > ? AND position < ?"
        values: list[object] = [after, before]
        for column, value in (("stream", stream), ("type", kind)):
            if value is not None:
                query += f" AND {column} = ?"
                values.append(value)
        return self._entries(f"{query} ORDER BY position {_ORDER[backward]} LIMIT ?", log, *values, limit)

    def stream(
        self, log: str, stream: str, *, above: int = 0, below: int = END, limit: int = 1000, backward: bool = False
    ) -> Iterator[Entry]:
        """Yield entries of one stream in order or backwards, read in one snapshot."""
        query = f"stream = ? AND version > ? AND version < ? ORDER BY version {_ORDER[backward]} LIMIT ?"
        return self._entries(query, log, stream, above, below, limit)

    def _entries(self, query: str, *values: object) -> Iterator[Entry]:
        with self._reading() as reader:
            rows = reader.execute(f"SELECT {_ENTRY} FROM entry WHERE log = ? AND {query}", values)  # noqa: S608  # constants
            try:
                for row in rows:
                    yield Entry(*row)
            finally:
                rows.close()  # or a reader that stops early, or fails, keeps its lock

    def find(self, log: str, ids: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return the positions of those event ids that are in `log`."""
        return {
            bytes(key): at
            for key, at in self._select("SELECT id, position FROM entry WHERE log = ? AND id IN ({})", log, ids)
        }

    def versions(self, log: str, streams: Sequence[str]) -> Mapping[str, int]:
        """Return the highest version of each stream that has any."""
        query = "SELECT stream, MAX(version) FROM entry WHERE log = ? AND stream IN ({}) GROUP BY stream"
        return {str(name): version for name, version in self._select(query, log, streams)}

    def _select(self, query: str, log: str, values: Sequence[object]) -> Iterator[tuple[Any, int]]:
        with self._reading() as reader:
            for at in range(0, len(values), _CHUNK):
                part = values[at : at + _CHUNK]
                yield from reader.execute(query.format(",".join("?" * len(part))), [log, *part])

    def tile(self, log: str, level: int, index: int) -> bytes:
        """Return the hashes of a tile."""
        query = "SELECT data FROM tile WHERE log = ? AND level = ? AND number = ?"
        with self._reading() as reader:
            row = reader.execute(query, (log, level, index)).fetchone()
        if row is None:
            raise RecordsError("HBK-707", "no such tile", level=level, index=index)
        if not isinstance(row[0], bytes):
            raise Tampered("a tile holds something else than was written", position=index << 8 * (level + 1))
        return row[0]

    def prune(self, log: str, positions: Sequence[int]) -> int:
        """Delete the entries at these positions but for the last of each stream, all in one transaction."""
        query = (
            "DELETE FROM entry WHERE log = ? AND position = ? AND version <"
            " (SELECT MAX(version) FROM entry other WHERE other.log = entry.log AND other.stream = entry.stream)"
        )
        with self._writing():
            return self._writer.executemany(query, ((log, at) for at in positions)).rowcount

    def restore(self, log: str, entries: Sequence[Entry]) -> int:
        """Put back entries that were pruned, all in one transaction."""
        with self._writing():
            check_restored(entries, _head(self._writer, log))
            before = self._writer.total_changes
            self._insert("INSERT OR IGNORE INTO entry VALUES ", log, entries)
            return self._writer.total_changes - before

    def scrub(self) -> bool:
        """Fold the write-ahead log into the file and empty it; free pages were overwritten when they became free."""
        with self._lock, _mapped():
            busy: int = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return not busy

    def get(self, space: str, key: bytes) -> Row | None:
        """Return a live row or None."""
        with self._reading() as reader:
            return _row(reader, space, key, self._now())

    def scan(self, space: str, prefix: bytes = b"", *, after: bytes = b"", limit: int = 1000) -> Iterator[Row]:
        """Yield live rows in key order."""
        query = (
            "SELECT key, value, revision, expires FROM row WHERE space = ? AND key > ? AND substr(key, 1, ?) = ?"
            " AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?"
        )
        with self._reading() as reader:
            rows = reader.execute(query, (space, after, len(prefix), prefix, self._now(), limit))
            try:
                for row in rows:
                    yield Row(*row)
            finally:
                rows.close()

    def logs(self) -> list[str]:
        """Return the names of all logs in the file."""
        with self._reading() as reader:
            return [row[0] for row in reader.execute("SELECT log FROM head ORDER BY log")]

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            self._closed = True
            self._close_idle()
            self._writer.close()  # the last one: it folds the write-ahead log into the file and removes it


def _head(connection: sqlite3.Connection, log: str) -> Head:
    query = "SELECT size, frontier, checkpoint, epoch FROM head WHERE log = ?"
    row = connection.execute(query, (log,)).fetchone()
    if row is None:
        return Head()
    if tuple(map(type, row)) != (int, bytes, bytes, int):
        raise Tampered("the head of the log holds something else than was written", position=0)
    return Head(*row)


def _row(connection: sqlite3.Connection, space: str, key: bytes, now: float) -> Row | None:
    query = "SELECT key, value, revision, expires FROM row WHERE space = ? AND key = ?"
    row = connection.execute(query, (space, key)).fetchone()
    return Row(*row) if row and (row[3] is None or row[3] > now) else None


def open_readonly(path: Path | str) -> SqliteStore:
    """Open an existing file for reading only, as an auditor does.

    Raises:
        RecordsError: HBK-706 when there is no such file, HBK-703 when it is no database.
    """
    return SqliteStore(path, readonly=True)
