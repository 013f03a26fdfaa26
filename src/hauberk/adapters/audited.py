"""A SQLite store as an auditor reads it: one file, at one moment, and nothing is ever written.

All reads are of one snapshot, so an audit of a log that grows meanwhile sees one state of it. Entries also come as
plain rows in pages, which is quicker than one by one. Unlike the store this is for one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection, Error

from hauberk.adapters.sqlite import _ENTRY, SqliteStore, _mapped
from hauberk.errors import RecordsError

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
