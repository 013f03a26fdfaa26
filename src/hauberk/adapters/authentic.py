"""A store whose rows nobody without the key can write: each value is kept behind a tag.

The stored value is `HMAC-SHA256 32 | value`; the tag covers space, key, expiry and value, each behind its length, so a
row can be neither made up, changed, nor moved under another key. It takes the keyring to make one, so whoever may only
write the database gets no further than deleting rows or putting back what was there before. The log needs no tags: its
entries are leaves of a signed tree.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from hmac import compare_digest

from msgspec.structs import replace

from hauberk.core.event import Entry
from hauberk.core.ports import END, Check, Delete, Head, Put, Row, Store, Write
from hauberk.crypto.keyring import Keyring, Purpose
from hauberk.errors import Tampered

TAG_BYTES = 32
_EXPIRY = struct.Struct(">d")


class AuthenticRows:
    """Implements `core.ports.Store` in front of another one.

    Args:
        inner: where everything is kept; closed with this one.
        keyring: makes the tags.
    """

    def __init__(self, inner: Store, keyring: Keyring) -> None:
        self._inner = inner
        self._keyring = keyring

    def _tag(self, space: str, key: bytes, value: bytes, expires: float | None) -> bytes:
        parts = (space.encode(), key, b"" if expires is None else _EXPIRY.pack(expires), value)
        return self._keyring.mac(Purpose.ROW, b"".join(len(part).to_bytes(4) + part for part in parts))

    def _opened(self, space: str, row: Row) -> Row:
        """Return a row without its tag.

        Raises:
            Tampered: HBK-710 it was not written with this key.
        """
        try:
            value = row.value[TAG_BYTES:]
            genuine = compare_digest(row.value[:TAG_BYTES], self._tag(space, row.key, value, row.expires))
        except (TypeError, struct.error):  # of another type than it was written with
            genuine = False
        if not genuine:
            raise Tampered("a row was written without the key", space=space, key=repr(row.key)[:80])
        return replace(row, value=value)

    def _closed(self, row: Put | Delete | Check) -> Put | Delete | Check:
        if not isinstance(row, Put):
            return row
        return replace(row, value=self._tag(row.space, row.key, row.value, row.expires) + row.value)

    def commit(self, write: Write) -> int:
        """Apply `write`, its rows tagged."""
        return self._inner.commit(replace(write, rows=[self._closed(row) for row in write.rows]))

    def get(self, space: str, key: bytes) -> Row | None:
        """Return a row or None; see `_opened` for what is refused."""
        row = self._inner.get(space, key)
        return None if row is None else self._opened(space, row)

    def scan(self, space: str, prefix: bytes = b"", *, after: bytes = b"", limit: int = 1000) -> Iterator[Row]:
        """Yield rows in key order; see `_opened` for what is refused."""
        return (self._opened(space, row) for row in self._inner.scan(space, prefix, after=after, limit=limit))

    def head(self, log: str) -> Head:
        """Return the head of `log`."""
        return self._inner.head(log)

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
        return self._inner.entries(
            log, after=after, before=before, stream=stream, kind=kind, limit=limit, backward=backward
        )

    def stream(
        self, log: str, stream: str, *, above: int = 0, below: int = END, limit: int = 1000, backward: bool = False
    ) -> Iterator[Entry]:
        """Yield entries of one stream in order or backwards."""
        return self._inner.stream(log, stream, above=above, below=below, limit=limit, backward=backward)

    def prune(self, log: str, positions: Sequence[int]) -> int:
        """Delete the entries at these positions but for the last of each stream."""
        return self._inner.prune(log, positions)

    def restore(self, log: str, entries: Sequence[Entry]) -> int:
        """Put back entries that were pruned."""
        return self._inner.restore(log, entries)

    def scrub(self) -> bool:
        """Overwrite what was deleted."""
        return self._inner.scrub()

    def find(self, log: str, ids: Sequence[bytes]) -> Mapping[bytes, int]:
        """Return the positions of those event ids that are in `log`."""
        return self._inner.find(log, ids)

    def versions(self, log: str, streams: Sequence[str]) -> Mapping[str, int]:
        """Return the highest version of each stream that has any."""
        return self._inner.versions(log, streams)

    def tile(self, log: str, level: int, index: int) -> bytes:
        """Return the hashes of a tile."""
        return self._inner.tile(log, level, index)

    def close(self) -> None:
        """Close the store behind."""
        self._inner.close()
