"""Tiles of the Merkle tree (C2SP tlog-tiles): the hashes of 256 neighbours on levels 0, 8, 16 ... of the tree.

Level 0 of a tile set holds leaf hashes, level 1 the roots of 256 leaves, and so on. With them a proof reads a few
kilobytes however long the log is, and a verifier can name the very leaf that was rewritten.
"""

from collections.abc import Sequence
from functools import cache

from hauberk.core.ports import Store, Tile
from hauberk.crypto.merkle import HASH_BYTES, Frontier
from hauberk.records.tile_paths import WIDTH, WIDTH_BITS, TiledTree


class TileWriter:
    """The unfinished tile of each level; grows with the log.

    Args:
        edge: hashes of the unfinished tile of each level, lowest first.
    """

    def __init__(self, size: int = 0, edge: list[bytes] | None = None) -> None:
        self._size = size
        self._edge = [bytearray(part) for part in edge or [b""]]
        self._changed: dict[tuple[int, int], bytes] = {}

    def extend(self, hashes: Sequence[bytes], frontier: Frontier) -> None:
        """Add leaf hashes, to the tiles and to the frontier, which gives the hashes of the higher levels."""
        at = 0
        while at < len(hashes):
            room = WIDTH - self._size % WIDTH
            part = hashes[at : at + room]
            at += len(part)
            self._size += len(part)
            self._edge[0] += b"".join(part)
            if len(part) < room:
                frontier.extend(part)
            else:
                frontier.extend(part[:-1])
                self._complete(frontier.append_noting(part[-1], WIDTH_BITS))

    def _complete(self, roots: Sequence[bytes]) -> None:
        """A tile of level 0 is full; `roots` are the hashes it adds to the levels above."""
        self._finish(0)
        for level, root in enumerate(roots, 1):
            if level == len(self._edge):
                self._edge.append(bytearray())
            self._edge[level] += root
            if len(self._edge[level]) == WIDTH * HASH_BYTES:
                self._finish(level)

    def _finish(self, level: int) -> None:
        self._changed[level, (self._size >> WIDTH_BITS * (level + 1)) - 1] = bytes(self._edge[level])
        self._edge[level].clear()

    def take(self) -> list[Tile]:
        """Return every tile that changed since the last call: the finished ones and the unfinished edge."""
        tiles = [Tile(level, index, data) for (level, index), data in self._changed.items()]
        self._changed.clear()
        for level, edge in enumerate(self._edge):
            if edge:
                tiles.append(Tile(level, self._size >> WIDTH_BITS * (level + 1), bytes(edge)))
        return tiles


def load_writer(store: Store, log: str, size: int) -> TileWriter:
    """Return the writer of a log of `size` leaves, its edge read from the store.

    Raises:
        RecordsError: HBK-707 when a tile is missing.
    """
    edge: list[bytes] = []
    level = 0
    while size >> WIDTH_BITS * level:
        count = (size >> WIDTH_BITS * level) % WIDTH
        index = size >> WIDTH_BITS * (level + 1)
        edge.append(store.tile(log, level, index)[: count * HASH_BYTES] if count else b"")
        level += 1
    return TileWriter(size, edge or [b""])


class StoredTree(TiledTree):
    """The tree of a stored log; reads only the tiles a proof needs, each once.

    Args:
        store: where the log lives.
        log: its name there.
    """

    def __init__(self, store: Store, log: str) -> None:
        super().__init__(cache(lambda level, index: store.tile(log, level, index)))
