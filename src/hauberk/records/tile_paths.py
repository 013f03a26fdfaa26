"""A log as a set of files (c2sp.org/tlog-tiles): their names, their contents, and a reader of them.

```
checkpoint                      the signed checkpoint
tile/<L>/<N>[.p/<W>]            hashes of level L, 256 of 32 bytes, or W of them while the tile is not complete
tile/entries/<N>[.p/<W>]        leaves, each behind its length in two bytes, big-endian
```

N is written in groups of three digits, all but the last behind an `x`: tile 1234067 of level 0 is
`tile/0/x001/x234/067`. Hashes on level L are roots of 256^L leaves each. Paths have no slash in front, so they go
behind the prefix of a URL as well as into a directory.

`TileDirectory` reads both: it is given a function that fetches a path, and does no input or output itself. What it
returns is what somebody claims; it is to be compared with a checkpoint that was verified.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import msgspec

from hauberk.crypto.merkle import HASH_BYTES, Frontier, Tree
from hauberk.crypto.note import MAX_NOTE_BYTES
from hauberk.errors import RecordsError

CHECKPOINT = "checkpoint"
WIDTH_BITS = 8  # of an index within a tile: how many levels of the tree one level of tiles has
WIDTH = 1 << WIDTH_BITS  # hashes in a complete tile, leaves in a complete bundle
ENTRIES = -1  # the level that stands for bundles of leaves
MAX_LEVEL = 63
MAX_LEAF_BYTES = 65_535
MAX_BUNDLE_BYTES = WIDTH * (2 + MAX_LEAF_BYTES)  # what a fetcher has to be ready for; one of our logs has 39,936
_ABSENT = "HBK-707"
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z")

Fetch = Callable[[str], bytes]  # raises RecordsError HBK-707 where there is nothing at that path


class TilePath(msgspec.Struct, frozen=True):
    """The name of a tile or bundle.

    Args:
        level: 0 to 63, or `ENTRIES`.
        index: from 0.
        width: how many it holds, 1 to 256; 256 is complete.
    """

    level: int
    index: int
    width: int = WIDTH

    def encode(self) -> str:
        """Return the path, without a slash in front."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"

    @classmethod
    def parse(cls, path: str) -> Self:
        """Parse the one spelling of a path.

        Raises:
            RecordsError: HBK-707 it names nothing that could be there.
        """
        found = _PATH.match(path)
        if found is None:
            raise _absent(path)
        level, index, width = found.groups()
        parsed = cls(
            ENTRIES if level == "entries" else int(level),
            int(index.replace("x", "").replace("/", "")),
            int(width) if width else WIDTH,
        )
        if parsed.level > MAX_LEVEL or (width and parsed.width >= WIDTH) or parsed.encode() != path:
            raise _absent(path)
        return parsed

    @classmethod
    def of(cls, level: int, index: int, size: int) -> Self:
        """Return the name this tile or bundle has in a tree of `size` leaves.

        Raises:
            RecordsError: HBK-707 it has none there.
        """
        hashes = size >> WIDTH_BITS * max(level, 0)
        width = min(WIDTH, hashes - (index << WIDTH_BITS))
        if width < 1:
            raise _absent(cls(level, index).encode())
        return cls(level, index, width)


def paths_of(size: int, start: int = 0) -> Iterator[TilePath]:
    """Yield the names of all tiles and bundles of a tree of `size` leaves, complete and partial, lowest level first.

    With `start`, only those that are not complete in a tree of that size, or not there.
    """
    for level in (ENTRIES, *range(MAX_LEVEL + 1)):
        bits = WIDTH_BITS * max(level, 0)
        hashes = size >> bits
        if not hashes:
            return
        for index in range(start >> bits + WIDTH_BITS, -(-hashes // WIDTH)):
            yield TilePath.of(level, index, size)


def encode_bundle(leaves: Sequence[bytes]) -> bytes:
    """Return the contents of an entry bundle.

    Raises:
        RecordsError: HBK-712 a leaf is longer than its length can say.
    """
    if any(len(leaf) > MAX_LEAF_BYTES for leaf in leaves):
        raise RecordsError("HBK-712", "a leaf is too long for a bundle")
    return b"".join(len(leaf).to_bytes(2) + leaf for leaf in leaves)


def decode_bundle(data: bytes) -> list[bytes]:
    """Return the leaves of an entry bundle.

    Raises:
        RecordsError: HBK-712.
    """
    leaves, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2])
        if end > len(data) or at + 2 > len(data):
            raise RecordsError("HBK-712", "a bundle ends in the middle of a leaf")
        leaves.append(data[at + 2 : end])
        at = end
    return leaves


def hashes_of(tile: bytes) -> list[bytes]:
    """Return the hashes of a tile, or of a part of one."""
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


class TiledTree(Tree):
    """A tree over tiles, of which a proof reads only those it needs.

    Args:
        tile: returns the hashes of a tile by level and index, complete or as far as it goes.
    """

    def __init__(self, tile: Callable[[int, int], bytes]) -> None:
        super().__init__(lambda at: self._hash(0, at))
        self._tile = tile

    def _hash(self, level: int, index: int) -> bytes:
        number, at = divmod(index, WIDTH)
        return self._tile(level, number)[at * HASH_BYTES : (at + 1) * HASH_BYTES]

    def subtree(self, start: int, end: int) -> bytes:
        """Return the root of [start, end), from a higher level where one covers it."""
        bits = (end - start).bit_length() - 1
        if end - start == 1 << bits and bits and bits % WIDTH_BITS == 0 and start % (end - start) == 0:
            return self._hash(bits // WIDTH_BITS, start >> bits)
        return super().subtree(start, end)


class TileDirectory:
    """A log as somebody serves it. Remembers the tiles of the tree it last looked at, not the bundles.

    Args:
        fetch: returns the contents of a path, and should not read more than `MAX_BUNDLE_BYTES`.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._size = 0
        self._tiles: dict[tuple[int, int], bytes] = {}

    def checkpoint(self) -> str:
        """Return the signed checkpoint, not verified.

        Raises:
            RecordsError: HBK-711 that cannot be one, HBK-707 there is none.
        """
        data = self._fetch(CHECKPOINT)
        if len(data) > MAX_NOTE_BYTES:
            raise RecordsError("HBK-711", "too long for a checkpoint")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise RecordsError("HBK-711", "a checkpoint is UTF-8") from None

    def tile(self, level: int, index: int, size: int) -> bytes:
        """Return the hashes of a tile in the tree of `size` leaves.

        Raises:
            RecordsError: HBK-707 it is not there, HBK-712 it has not as many bytes as it must.
        """
        if size != self._size:
            self._size, self._tiles = size, {}
        found = self._tiles.get((level, index))
        if found is None:
            path = TilePath.of(level, index, size)
            data, width = self._fetched(path)
            if len(data) != width * HASH_BYTES:
                raise RecordsError("HBK-712", "a tile has another size than its name says", path=path.encode())
            found = self._tiles[level, index] = data[: path.width * HASH_BYTES]
        return found

    def bundle(self, index: int, size: int) -> list[bytes]:
        """Return the leaves of a bundle in the tree of `size` leaves.

        Raises:
            RecordsError: HBK-707 it is not there (the log may have pruned it), HBK-712 it is malformed.
        """
        path = TilePath.of(ENTRIES, index, size)
        data, width = self._fetched(path)
        leaves = decode_bundle(data)
        if len(leaves) != width:
            raise RecordsError("HBK-712", "a bundle has another size than its name says", path=path.encode())
        return leaves[: path.width]

    def _fetched(self, path: TilePath) -> tuple[bytes, int]:
        """Return the contents and width of what a path names, or of the complete tile that took its place."""
        try:
            return self._fetch(path.encode()), path.width
        except RecordsError as error:
            if path.width == WIDTH or error.code != _ABSENT:
                raise
        return self._fetch(TilePath(path.level, path.index).encode()), WIDTH

    def leaf_hashes(self, size: int, start: int = 0) -> Iterator[bytes]:
        """Yield the hashes of the leaves from `start` to `size`, as the tiles of level 0 have them."""
        for index in range(start >> WIDTH_BITS, -(-size // WIDTH)):
            tile = self.tile(0, index, size)
            self._tiles.pop((0, index), None)
            first = max(start - (index << WIDTH_BITS), 0)
            yield from hashes_of(tile[first * HASH_BYTES :])

    def leaves(self, size: int, start: int = 0) -> Iterator[bytes]:
        """Yield the leaves from `start` to `size`, as the bundles have them."""
        for index in range(start >> WIDTH_BITS, -(-size // WIDTH)):
            yield from self.bundle(index, size)[max(start - (index << WIDTH_BITS), 0) :]

    def tree(self, size: int) -> TiledTree:
        """Return the tree of `size` leaves, for roots and proofs."""
        return TiledTree(lambda level, index: self.tile(level, index, size))


def frontier_of(tree: Tree, size: int) -> Frontier:
    """Return the frontier of the first `size` leaves of a tree."""
    roots, start = [], 0
    for bit in reversed(range(size.bit_length())):
        if size >> bit & 1:
            roots.append(tree.subtree(start, start + (1 << bit)))
            start += 1 << bit
    return Frontier(size, roots)


def _absent(path: str) -> RecordsError:
    return RecordsError(_ABSENT, "no such tile", path=path)
