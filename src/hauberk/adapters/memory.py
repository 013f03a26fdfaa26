"""A store in memory: for tests, and for programs that keep nothing. Same contract as every other store."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from time import time

from hauberk.adapters._write import check_append, check_restored, check_row
from hauberk.core.event import Entry
from hauberk.core.ports import END, Append, Check, Delete, Head, Put, Row, Write
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
        self._logs: dict[str, list[Entry | None]] = {}  # None where the body was pruned
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
                self._check(write.append)
            changed = self._changed(write.rows)
            if write.append is not None:
                self._append(write.append)
            for key, row in changed.items():
                if row is None:
                    self._rows.pop(key, None)
                else:
                    self._rows[key] = row
            self._revision += 1
            return self._revision

    def _changed(self, rows: Sequence[Put | Delete | Check]) -> Mapping[tuple[str, bytes], Row | None]:
        """Return what each row becomes; a write may touch one more than once."""
        changed: dict[tuple[str, bytes], Row | None] = {}
        for row in rows:
            key = (row.space, row.key)
            old = changed.get(key) if key in changed else self._rows.get(key)
            check_row(row, old.revision if old is not None and self._live(old) else 0)
            if isinstance(row, Check):
                continue
            revision = (old.revision if old else 0) + 1
            changed[key] = Row(row.key, row.value, revision, row.expires) if isinstance(row, Put) else None
        return changed

    def _live(self, row: Row) -> bool:
        return row.expires is None or row.expires > self._now()

    def _check(self, append: Append) -> None:
        check_append(append, self._heads.get(append.log, Head()))
        ids = {entry.id for entry in append.entries}
        if len(ids) < len(append.entries) or any((append.log, one) in self._ids for one in ids):
            raise Conflict("an event id is there already", what="entry", log=append.log)
        numbered = {(entry.stream, entry.version) for entry in append.entries}
        if len(numbered) < len(append.entries) or any(
            version <= self._versions.get((append.log, stream), 0) for stream, version in numbered
        ):
            raise Conflict("a stream version is there already", what="entry", log=append.log)

    def _append(self, append: Append) -> None:
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
        """Yield entries in order or backwards."""
        with self._lock:
            self._open()
            rest = self._logs.get(log, [])[max(0, after + 1) : max(0, before)]
        chosen = (
            entry
            for entry in (reversed(rest) if backward else rest)
            if entry is not None and stream in {None, entry.stream} and kind in {None, entry.type}
        )
        return islice(chosen, limit)

    def stream(
        self, log: str, stream: str, *, above: int = 0, below: int = END, limit: int = 1000, backward: bool = False
    ) -> Iterator[Entry]:
        """Yield entries of one stream in order or backwards."""
        found = self.entries(log, stream=stream, limit=END, backward=backward)
        return islice((entry for entry in found if above < entry.version < below), limit)

    def prune(self, log: str, positions: Sequence[int]) -> int:
        """Delete the entries at these positions but for the last of each stream."""
        with self._lock:
            self._open()
            entries, gone = self._logs.get(log, []), 0
            for at in positions:
                entry = entries[at] if 0 <= at < len(entries) else None
                if entry is not None and entry.version < self._versions[log, entry.stream]:
                    entries[at] = None
                    gone += 1
            return gone

    def restore(self, log: str, entries: Sequence[Entry]) -> int:
        """Put back entries that were pruned."""
        with self._lock:
            self._open()
            check_restored(entries, self._heads.get(log, Head()))
            kept, back = self._logs.get(log, []), 0
            for entry in entries:
                if kept[entry.position] is None:
                    kept[entry.position] = entry
                    back += 1
            return back

    def scrub(self) -> bool:
        """Nothing is kept anywhere else."""
        return True

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
        return row if row is not None and self._live(row) else None

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
