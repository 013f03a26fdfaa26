"""The right edge of a growing tree, kept as the unfinished tile of each level: all it takes to go on from there.

A tile is hashed as a whole, level by level, which costs less than leaf by leaf.
"""

from collections.abc import Sequence
from operator import add

from hauberk.core.ports import Tile
from hauberk.crypto.merkle import Frontier
from hauberk.errors import RecordsError
from hauberk.records.tile_paths import WIDTH, WIDTH_BITS, hashes_of
from hauberk.records.verify.hashing import NODE, hash_each


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over the hashes of a complete tile."""
    level = list(hashes)
    while len(level) > 1:
        level = hash_each(map(add, level[::2], level[1::2]), NODE)
    return level[0]


class Edge:
    """Grows with the leaves.

    Args:
        size: of the tree.
        levels: the unfinished tile of each level, lowest first.

    Raises:
        RecordsError: HBK-711 that is no edge of a tree of this size.
    """

    __slots__ = ("_finished", "levels", "size")

    def __init__(self, size: int = 0, levels: Sequence[bytes] = (b"",)) -> None:
        self.size = size
        self.levels = [hashes_of(level) for level in levels] or [[]]
        self._finished: list[Tile] = []
        widths = [(size >> WIDTH_BITS * level) % WIDTH for level in range(len(self.levels))]
        if size < 0 or size >> WIDTH_BITS * len(self.levels) or [len(level) for level in self.levels] != widths:
            raise RecordsError("HBK-711", "the edge does not fit the tree size", size=size)

    def copy(self) -> "Edge":
        """Return an independent copy."""
        return Edge(self.size, [b"".join(level) for level in self.levels])

    @property
    def room(self) -> int:
        """How many leaves the lowest tile can take."""
        return WIDTH - len(self.levels[0])

    def extend(self, hashes: Sequence[bytes]) -> None:
        """Add leaf hashes, at most as many as there is room for."""
        self.levels[0] += hashes
        self.size += len(hashes)
        level = 0
        while len(self.levels[level]) == WIDTH:
            full = self.levels[level]
            self.levels[level] = []
            level += 1
            self._finished.append(Tile(level - 1, (self.size >> WIDTH_BITS * level) - 1, b"".join(full)))
            if level == len(self.levels):
                self.levels.append([])
            self.levels[level].append(tile_root(full))

    def finished(self) -> list[Tile]:
        """Return the tiles that were completed since the last call."""
        found, self._finished = self._finished, []
        return found

    def unfinished(self) -> list[Tile]:
        """Return the tiles that are not complete."""
        return [
            Tile(level, self.size >> WIDTH_BITS * (level + 1), b"".join(hashes))
            for level, hashes in enumerate(self.levels)
            if hashes
        ]

    def frontier(self) -> Frontier:
        """Return the roots of the complete subtrees."""
        encoded = b""
        for hashes in reversed(self.levels):
            part = Frontier()
            part.extend(hashes)
            encoded += part.encode()
        return Frontier.decode(self.size, encoded)

    def root(self) -> bytes:
        """Return the root of the tree."""
        return self.frontier().root()
