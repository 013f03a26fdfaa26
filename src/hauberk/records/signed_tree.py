"""Whether an entry is in the log as it was signed, so cheaply that every entry that is read is asked.

Whoever can write the database can make an entry that fits its own leaf, and put one behind the end. So the leaf has to
be in the tree: its hash at its place in a tile of level 0, the root of that tile in the tile above, and so on up to a
tile that is not full, whose hashes are summed up in the frontier of the head; and the frontier in the checkpoint, which
the log's key has signed. Each tile is hashed once. After that an entry costs the hash of its leaf and a comparison.

A tile that was under one signed head is under every later one, because nobody with the log's key signs anything but
what continues the log; a new epoch may start from an earlier entry, so with it everything is looked at again.

What this does not show is that something is missing: who deletes entries, or hides them from a query by changing the
column it looks at, is found by `hauberk ledger verify`.
"""

import threading
from collections import OrderedDict
from hashlib import sha256

from hauberk.core.event import Entry
from hauberk.core.ports import Head, Store
from hauberk.crypto.merkle import HASH_BYTES, leaf_hash
from hauberk.crypto.signing import VerifyKey
from hauberk.errors import RecordsError, Tampered
from hauberk.records.heads import age, signed_frontier
from hauberk.records.tile_paths import WIDTH, WIDTH_BITS

TILES = 1_024  # kept in memory, 8 KiB each: the leaves of 260,000 entries
_MASK = WIDTH - 1
_NOTHING = (-1, b"")


class SignedTree:
    """The tree under the newest signed head of one log. Thread-safe.

    Args:
        store: where the log lives.
        log: its name there.
        key: the log's key.
        tiles: how many to keep.
    """

    def __init__(self, store: Store, log: str, key: VerifyKey, tiles: int = TILES) -> None:
        self._store = store
        self._log = log
        self._key = key
        self._limit = tiles
        self._lock = threading.Lock()  # guards all below, but for a look at _last
        self._head = Head()
        self._tiles: OrderedDict[tuple[int, int], bytes] = OrderedDict()  # by level and index, as far as proven
        self._last = _NOTHING  # of level 0: its index and hashes

    def check(self, entry: Entry) -> None:
        """Return if the leaf of an entry is in the signed tree, at its position.

        Raises:
            Tampered: HBK-710 it is not, with its `position`; `kind` is `appended` behind the signed end, `rewritten`
                where another leaf was signed, `tile` where the tree itself was changed.
        """
        at, hashed = entry.position, leaf_hash(entry.leaf)
        start = (at & _MASK) * HASH_BYTES
        index, tile = self._last
        if index == at >> WIDTH_BITS and tile[start : start + HASH_BYTES] == hashed:
            return
        with self._lock:
            if self._proven(at) != hashed:
                known = self._head.epoch
                self._refresh()  # in a later epoch something else may have been signed here
                if self._head.epoch == known or self._proven(at) != hashed:
                    raise Tampered("the entry is not in the signed tree", position=at, kind="rewritten")

    def _proven(self, at: int) -> bytes:
        """Return the hash that was signed for the leaf at a position."""
        if not 0 <= at < self._head.size:
            self._refresh()
        if not 0 <= at < self._head.size:
            raise Tampered("the entry is behind the signed end of the log", position=at, kind="appended")
        tile = self._tile(0, at >> WIDTH_BITS, at & _MASK, at)
        self._last = (at >> WIDTH_BITS, tile)
        start = (at & _MASK) * HASH_BYTES
        return tile[start : start + HASH_BYTES]

    def _refresh(self) -> None:
        """Read the head and believe it if it is signed. Entries are read before it, so it is as new as they are."""
        head = self._store.head(self._log)
        signed_frontier(self._log, head, self._key)
        if age(head) < age(self._head):
            raise Tampered("the log has become shorter", position=head.size, kind="rolled-back")
        if head.epoch != self._head.epoch:
            self._tiles.clear()
            self._last = _NOTHING
        self._head = head

    def _tile(self, level: int, index: int, place: int, at: int) -> bytes:
        """Return a tile that is proven at least as far as `place`, for the sake of position `at`."""
        known = self._tiles.get((level, index))
        if known is not None and len(known) > place * HASH_BYTES:
            self._tiles.move_to_end((level, index))
            return known
        width = min(WIDTH, (self._head.size >> WIDTH_BITS * level) - index * WIDTH)
        try:
            tile = self._store.tile(self._log, level, index)[: width * HASH_BYTES]
        except RecordsError as error:
            if error.code != "HBK-707":
                raise
            tile = b""
        if len(tile) != width * HASH_BYTES or _roots(tile) != self._above(level, index, width, at):
            raise Tampered("a tile is not the one that was signed", position=at, kind="tile", tile=f"{level}/{index}")
        self._tiles[level, index] = tile
        if len(self._tiles) > self._limit:
            self._tiles.popitem(last=False)
        return tile

    def _above(self, level: int, index: int, width: int, at: int) -> bytes:
        """Return what is signed of a tile: its root, or of one that is not full the roots that the frontier has."""
        if width == WIDTH:
            place = index & _MASK
            above = self._tile(level + 1, index >> WIDTH_BITS, place, at)
            return above[place * HASH_BYTES : (place + 1) * HASH_BYTES]
        start = (self._head.size >> WIDTH_BITS * (level + 1)).bit_count() * HASH_BYTES
        return self._head.frontier[start : start + width.bit_count() * HASH_BYTES]


def _roots(tile: bytes) -> bytes:
    """Return the roots of the complete subtrees that the hashes of a tile make, largest first; of a full one, one."""
    roots, pair = [], 2 * HASH_BYTES
    while tile:
        if len(tile) % pair:
            roots.append(tile[-HASH_BYTES:])
        ends = range(pair, len(tile) + 1, pair)
        tile = b"".join([sha256(b"\x01" + tile[end - pair : end]).digest() for end in ends])
    return b"".join(reversed(roots))
