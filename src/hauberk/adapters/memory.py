"""A store in memory: for tests, and for programs that keep nothing. Same contract as every other store."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from time import time

from hauberk.adapters._write import check_append, check_row
from hauberk.core.event import Entry
from hauberk.core.ports import Append, Head, Put, Row, Write
from hauberk.errors import Conflict, RecordsError


class MemoryStore:
    """Implements `core.ports.Store`; nothing survives the process.

    Args:
        now: Unix seconds, for expiry.
    """

    def __init__(self, now: Callable[[], float] = time) -> None:
        self._now = now
        self._lock = threading.RLock()  # guards everything below
        self._heads: dict[str, Head] = {}
        self._logs: dict[str, list[Entry]] = {}
        self._ids: dict[tuple[str, bytes], int] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._tiles: dict[tuple[str, int, int], bytes] = {}
        self._rows: dict[tuple[str, bytes], Row] = {}
        self._revision = 0
        self._closed = False

    def _open(self) -> None:
        if self._closed:
            raise RecordsError("HBK-706", "the store is closed")

    def commit(self, write: Write) -> int:
        """Apply `write` atomically; see `core.ports.Store`."""
        with self._lock:
            self._open()
            if write.append is not None:
                check_append(write.append, self._heads.get(write.append.log, Head()))
            for row in write.rows:
                found = self.get(row.space, row.key)
                check_row(row, found.revision if found else 0)
            if write.append is not None:
                self._append(write.append)
            for row in write.rows:
                if isinstance(row, Put):
                    old = self._rows.get((row.space, row.key))
                    revision = (old.revision if old else 0) + 1
                    self._rows[row.space, row.key] = Row(row.key, row.value, revision, row.expires)
                else:
                    self._rows.pop((row.space, row.key), None)
            self._revision += 1
            return self._revision

    def _append(self, append: Append) -> None:
        taken = [entry.id for entry in append.entries if (append.log, entry.id) in self._ids]
        if taken:
            raise Conflict("an event id is there already", log=append.log)
        self._heads[append.log] = append.head
        self._logs.setdefault(append.log, []).extend(append.entries)
        for entry in append.entries:
            self._ids[append.log, entry.id] = entry.position
            self._versions[append.log, entry.stream] = entry.version
        for tile in append.tiles:
            self._tiles[append.log, tile.level, tile.index] = tile.data

    def head(self, log: str) -> Head:
        """Return the head of `log`."""
        with self._lock:
            self._open()
            return self._heads.get(log, Head())

    def entries(
        self, log: str, *, after: int = -1, stream: str | None = None, kind: str | None = None, limit: int = 1000
    ) -> Iterator[Entry]:
        """Yield entries in order."""
        with self._lock:
            self._open()
            rest = self._logs.get(log, [])[after + 1 :]
        chosen = (
            entry
            for entry in rest
            if (stream is None or entry.stream == stream) and (kind is None or entry.type == kind)
        )
        return islice(chosen, limit)

    def find(self, log: str, ids: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return the positions of those event ids that are in `log`."""
        with self._lock:
            self._open()
            return {key: self._ids[log, key] for key in ids if (log, key) in self._ids}

    def versions(self, log: str, streams: Sequence[str]) -> Mapping[str, int]:
        """Return the highest version of each stream that has any."""
        with self._lock:
            self._open()
            return {name: self._versions[log, name] for name in streams if (log, name) in self._versions}

    def tile(self, log: str, level: int, index: int) -> bytes:
        """Return the hashes of a tile."""
        with self._lock:
            self._open()
            data = self._tiles.get((log, level, index))
        if data is None:
            raise RecordsError("HBK-707", "no such tile", level=level, index=index)
        return data

    def get(self, space: str, key: bytes) -> Row | None:
        """Return a live row or None."""
        with self._lock:
            self._open()
            row = self._rows.get((space, key))
        return row if row is not None and (row.expires is None or row.expires > self._now()) else None

    def scan(self, space: str, prefix: bytes = b"", *, after: bytes = b"", limit: int = 1000) -> Iterator[Row]:
        """Yield live rows in key order."""
        with self._lock:
            self._open()
            keys = sorted(key for at, key in self._rows if at == space and key.startswith(prefix) and key > after)
        rows = (self.get(space, key) for key in keys)
        return islice((row for row in rows if row is not None), limit)

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
