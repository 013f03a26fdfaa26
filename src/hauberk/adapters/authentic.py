"""A store whose rows nobody without the key can write: each value is kept behind a tag.

The stored value is `HMAC-SHA256 32 | value`; the tag covers space, key, expiry and value, each behind its length, so a
row can be neither made up, changed, nor moved under another key. It takes the keyring to make one, so whoever may only
write the database gets no further than deleting rows or putting back what was there before. The log needs no tags: its
entries are leaves of a signed tree.
"""

import struct
from collections.abc import Iterator
from hmac import compare_digest

from msgspec.structs import replace

from hauberk.core.ports import Check, Delete, Put, Row, Store, Write
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
        # The log needs no tags: its part of the store, and what is about the whole, is the inner one's own.
        self.head, self.entries, self.stream = inner.head, inner.entries, inner.stream
        self.find, self.versions, self.tile = inner.find, inner.versions, inner.tile
        self.prune, self.restore = inner.prune, inner.restore
        self.scrub, self.close = inner.scrub, inner.close

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
