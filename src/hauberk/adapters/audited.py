"""A SQLite store as an auditor reads it: one file, at one moment, and nothing is ever written.

All reads are of one snapshot, so an audit of a log that grows meanwhile sees one state of it. Entries also come as
plain rows in pages, which is quicker than one by one. Unlike the store this is for one thread.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection, Error

from hauberk.adapters.sqlite import _ENTRY, SqliteStore, _connect, _mapped
from hauberk.core.ports import Head, Tile
from hauberk.errors import Conflict, RecordsError

_LOST = """
SELECT 'entry', log, COUNT(*) FROM entry WHERE log NOT IN (SELECT log FROM head) GROUP BY log UNION ALL
SELECT 'tile', log, COUNT(*) FROM tile WHERE log NOT IN (SELECT log FROM head) GROUP BY log
"""
_BEHIND = """
SELECT log, level, number FROM tile JOIN head USING (log)
WHERE level < 0 OR level > 7 OR number > (size - 1) >> (8 * (level + 1)) OR size >> (8 * level) = 0
"""
Row = tuple[int, bytes, str, str, int, bytes, bytes, bytes, bytes, bytes]


class AuditedFile(SqliteStore):
    """Implements the reading half of `core.ports.Store`, and `records.verify.entries.RowSource`.

    Args:
        path: an existing database.

    Raises:
        RecordsError: HBK-706 when there is no such file, HBK-703 when it is no database.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, readonly=True)
        with _mapped():
            try:
                self._writer.execute("BEGIN")
                self._writer.execute("SELECT COUNT(*) FROM head").fetchall()  # the first read fixes the snapshot
            except Error:
                self._writer.close()
                raise

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _mapped():
            if self._closed:
                raise RecordsError("HBK-706", "the store is closed")
            yield self._writer

    def rows(self, log: str, *, after: int, page: int) -> Iterator[list[Row]]:
        """Yield the fields of the entries above position `after`, in order, in pages of at most `page`."""
        query = f"SELECT {_ENTRY} FROM entry WHERE log = ? AND position > ? ORDER BY position"  # noqa: S608  # constants
        with self._reading() as reader:
            found = reader.execute(query, (log, after))
            try:
                while rows := found.fetchmany(page):
                    yield rows
            finally:
                found.close()

    def integrity(self) -> list[str]:
        """Return what the engine itself finds wrong: pages, indexes against their tables; nothing when all is well."""
        with self._reading() as reader:
            try:
                return [row[0] for row in reader.execute("PRAGMA integrity_check") if row[0] != "ok"]
            except Error as error:
                return [str(error)]

    def strays(self) -> list[str]:
        """Return what belongs to no log: rows of a log without a head, tiles behind the end of theirs."""
        with self._reading() as reader:
            lost = [
                f"{count} {table} rows are of {log!r}, which has no head" for table, log, count in reader.execute(_LOST)
            ]
            behind = [
                f"tile {level}/{number} is behind the end of {log!r}" for log, level, number in reader.execute(_BEHIND)
            ]
            return lost + behind


def rebuild(path: Path, log: str, tiles: Sequence[Tile], head: Head) -> None:
    """Write tiles and frontier anew, in one transaction, if the head is still the one they were computed for.

    Args:
        path: the database.
        log: which.
        tiles: to write.
        head: with the frontier to write; size, checkpoint and epoch as they are stored.

    Raises:
        Conflict: HBK-701 the head has moved; nothing was written.
        RecordsError: HBK-703 the engine failed.
    """
    with _mapped(), closing(_connect(path, readonly=False)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        done = writer.execute(
            "UPDATE head SET frontier = ? WHERE log = ? AND size = ? AND checkpoint = ? AND epoch = ?",
            (head.frontier, log, head.size, head.checkpoint, head.epoch),
        )
        if done.rowcount != 1:
            raise Conflict("the log has grown meanwhile", what="head")
        rows = [(log, tile.level, tile.index, tile.data) for tile in tiles]
        writer.executemany("INSERT OR REPLACE INTO tile VALUES (?, ?, ?, ?)", rows)
        writer.execute("COMMIT")
