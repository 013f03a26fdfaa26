"""One pass over the entries of a log, in order, up to its root.

Everything a leaf covers is computed anew: digests of the parts, position, version of the stream, the facts of `meta`
that are also columns, the key commitment; event ids are unique; every leaf hash is compared with the stored tile, which
tells *which* leaf was changed, and every tile above with what follows from those below. The walk ends with the root,
and whoever started it compares that with a signed checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from hauberk.core.event import Entry
from hauberk.core.ports import Store
from hauberk.crypto.merkle import HASH_BYTES, leaf_hash
from hauberk.errors import RecordsError, Tampered
from hauberk.records.positions import Positions
from hauberk.records.tile_paths import WIDTH, hashes_of
from hauberk.records.verify.anchors import Anchor, differing, shorter
from hauberk.records.verify.declared import STREAMS, Declared
from hauberk.records.verify.edge import Edge
from hauberk.records.verify.hashing import LEAF, hash_each
from hauberk.records.verify.page import Page, Row, check_entry, fitting
from hauberk.records.verify.report import Kind, tampered
from hauberk.records.verify.statements import Statements

PAGE = 256  # entries read at once: what a tile holds, and what stays in a processor's cache
Told = Callable[[int], None]


@runtime_checkable
class RowSource(Protocol):
    """A store that gives entries as plain rows, which is quicker."""

    def rows(self, log: str, *, after: int, page: int) -> Iterator[list[Row]]:
        """Yield the fields of the entries above position `after`, in order, in pages of at most `page`."""


def _beyond(row: Row, position: int) -> bool:
    """Tell whether a row is at or above a position; one at no position at all is looked at where it is met."""
    at: object = row[0]
    return isinstance(at, int) and at >= position


class Versions(dict[str, int]):
    """The last version of each stream. Looks up what the walk has not met.

    Args:
        before: returns the version of a stream before the walk, 0 when there was none.
    """

    def __init__(self, before: Callable[[str], int]) -> None:
        super().__init__()
        self._before = before
        self._known: dict[str, int] = {}  # what was looked up

    def __missing__(self, stream: str) -> int:
        if stream not in self._known:
            self._known[stream] = self._before(stream)
        return self._known[stream]

    @property
    def new(self) -> int:
        """How many of the streams were not there before."""
        return sum(not version for stream, version in self._known.items() if stream in self)


def _none_before(_stream: str) -> int:
    return 0


class Walk:
    """The state of one pass.

    Args:
        store: only read.
        log: its name there.
        anchors: checkpoints to compare with on the way, smallest first.
        declared: collects what entries declare.
        statements: follows the statements of producers.
        edge: of the tree before the first entry that is read.
        gone: where entries may be missing, if what says so is met later.
        before: returns the version of a stream before that.
    """

    def __init__(
        self,
        store: Store,
        log: str,
        *,
        anchors: Sequence[Anchor],
        declared: Declared,
        statements: Statements,
        edge: Edge,
        gone: Positions,
        before: Callable[[str], int] = _none_before,
    ) -> None:
        self.edge = edge
        self.declared = declared
        self.statements = statements
        self.versions = Versions(before)
        self.pruned = 0  # entries that are missing
        self._loose = 0  # of those, how many no stream has been found to lack
        self._missing = Positions()
        self._last_missing = -1
        self._store = store
        self._log = log
        self._anchors = list(anchors)[::-1]  # the smallest at the end
        self.seen: set[bytes] = set()  # ids
        self._tile = b""  # the stored tile of the leaves that come next
        self._gone = gone
        self._fault: Tampered | None = None  # the first tile above the leaves that is wrong

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self.edge.size

    def begin(self) -> None:
        """Read the stored tile that the first leaf falls into."""
        if self.edge.room < WIDTH:
            self._tile = self._stored(0, self.size // WIDTH, self.size)
        self._meet()

    # reading

    def run(self, size: int, told: Told | None = None) -> Entry | None:
        """Take every entry up to `size`, and return the one behind, if there is any.

        Raises:
            Tampered: HBK-710 or HBK-713 with the first bad position.
        """
        for rows in self._pages():
            here = [row for row in rows if not _beyond(row, size)] if _beyond(rows[-1], size) else rows
            self._take(here)
            if told is not None:
                told(self.size)
            if len(here) < len(rows):
                return Entry(*rows[len(here)])
        return None

    def _pages(self) -> Iterator[list[Row]]:
        try:
            if isinstance(self._store, RowSource):
                yield from self._store.rows(self._log, after=self.size - 1, page=PAGE)
            else:
                yield from self._stored_pages()
        except RecordsError as error:
            raise tampered(Kind.UNREADABLE, "entries cannot be read from here on", self._unreadable()) from error

    def _stored_pages(self) -> Iterator[list[Row]]:
        after = self.size - 1
        while page := list(self._store.entries(self._log, after=after, limit=PAGE)):
            after = page[-1].position
            yield [msgspec.structs.astuple(entry) for entry in page]

    def _unreadable(self) -> int:
        """Return the first position that cannot be read."""
        at = self.size
        try:
            for entry in self._store.entries(self._log, after=at - 1, limit=PAGE):
                at = entry.position + 1
        except RecordsError:
            pass
        return at

    def _elsewhere(self, position: int) -> bytes | None:
        try:
            found = self._store.entries(self._log, after=position - 1, before=position + 1, limit=1)
            return next((entry.leaf for entry in found), None)
        except RecordsError:
            return None

    def _stored(self, level: int, number: int, position: int) -> bytes:
        try:
            found = self._store.tile(self._log, level, number)
        except RecordsError as error:
            raise tampered(Kind.TILE, "a tile is missing", position) from error
        if not isinstance(found, bytes):
            raise tampered(Kind.TILE, "a tile holds something that is no bytes", position)
        return found

    # taking

    def _take(self, rows: list[Row]) -> None:
        while rows:
            if _beyond(rows[0], self.size + 1):
                self.skip(rows[0][0])
            page = Page(self._part(rows))
            if len(page.streams) > 1 and not STREAMS.isdisjoint(page.streams):  # what declares something goes alone
                end = next(at for at, stream in enumerate(page.streams) if stream in STREAMS)
                page = Page(page.rows[: max(end, 1)])
            self._checked(page)
            rows = rows[len(page.rows) :]

    def _part(self, rows: list[Row]) -> list[Row]:
        """Return the rows that are looked at together: of one tile, up to the next anchor, without a gap."""
        start, room = self.size, self._room()
        part = rows[:room]
        if part[-1][0] != start + len(part) - 1:
            end = next((at for at, row in enumerate(part) if row[0] != start + at), len(part))
            part = part[: max(end, 1)]
        return part

    def _room(self) -> int:
        """Return how many leaves there are to the end of the tile or the next anchor."""
        return min(self.edge.room, self._anchors[-1].size - self.size) if self._anchors else self.edge.room

    def _checked(self, page: Page) -> None:
        """Take a page, or go through it entry by entry to say what is wrong."""
        ahead = fitting(page, self.size, self.seen, self.versions)
        if ahead is not None:
            hashes = hash_each(page.leaves, LEAF)
            if self._expected(len(hashes)) == b"".join(hashes):
                self._accept(page, ahead, hashes)
                return
        for row in page.rows:
            entry = Entry(*row)
            if entry.position != self.size or type(entry.position) is not int:
                raise tampered(Kind.UNREADABLE, "an entry has no proper position", self.size)
            check_entry(entry, self.size, self.seen, self._elsewhere)
            hashed = leaf_hash(entry.leaf)
            version = self._version(entry)
            expected = self._expected(1)
            if not expected:
                raise tampered(Kind.TILE, "a tile is too short", self.size)
            if expected != hashed:
                raise tampered(Kind.EDITED, "the leaf differs from the tree", self.size)
            self._accept(Page([row]), {entry.stream: version}, [hashed])

    def _expected(self, count: int) -> bytes:
        """Return the stored hashes of the next leaves."""
        offset = self.size % WIDTH
        if offset == 0:
            self._tile = self._stored(0, self.size // WIDTH, self.size)
        return self._tile[offset * HASH_BYTES : (offset + count) * HASH_BYTES]

    def _version(self, entry: Entry) -> int:
        """Return the version of an entry if it is the next one of its stream, but for entries that were pruned."""
        lacking = entry.version - self.versions[entry.stream] - 1
        if not 0 <= lacking <= self._loose:
            raise tampered(Kind.REORDERED, "the stream version is out of order", self.size)
        self._loose -= lacking
        return entry.version

    def _accept(self, page: Page, ahead: Mapping[str, int], hashes: list[bytes]) -> None:
        start = self.size
        self.statements.take(page, start)
        if len(hashes) == 1 and page.streams[0] in STREAMS:
            entry = page.entry(0)
            self.declared.take(entry, self.edge.root())
            self.statements.introduce(entry)
        self.seen.update(page.ids)
        self.versions.update(ahead)
        self._grow(hashes)

    def skip(self, upto: int) -> None:
        """Take the places of entries that are not there from the tiles, as far as they may have been pruned.

        Raises:
            Tampered: HBK-710 they may not.
        """
        while self.size < upto:
            count = min(self._room(), upto - self.size)
            lacking = self._gone.lacking(self.size, self.size + count)
            if lacking == self.size:
                raise tampered(Kind.DELETED, "an entry is missing", self.size)
            count = count if lacking is None else lacking - self.size
            data = self._expected(count)
            if len(data) != count * HASH_BYTES:
                raise tampered(Kind.TILE, "a tile is too short", self.size + len(data) // HASH_BYTES)
            self.statements.missing()
            self.pruned += count
            self._loose += count
            self._missing.add(self.size, count)
            self._last_missing = self.size + count - 1
            self._grow(hashes_of(data))

    def _grow(self, hashes: list[bytes]) -> None:
        self.edge.extend(hashes)
        for tile in self.edge.finished():
            if tile.level:
                self._compare(tile.level, tile.index, tile.data)
        self._meet()

    def _compare(self, level: int, index: int, data: bytes) -> None:
        """Compare a tile above the leaves with the stored one, which may hold more while the log grows."""
        first = index * WIDTH << 8 * level
        try:
            stored = self._stored(level, index, first)
        except Tampered as missing:
            self._fault = self._fault or missing
            return
        if not stored.startswith(data):
            parts = range(0, len(data), HASH_BYTES)
            at = next(at for at in parts if stored[at : at + HASH_BYTES] != data[at : at + HASH_BYTES])
            position = first + (at // HASH_BYTES << 8 * level)
            self._fault = self._fault or tampered(Kind.TILE, "a tile differs from the leaves below it", position)

    def _meet(self) -> None:
        """Compare the root with the anchors of this size."""
        while self._anchors and self._anchors[-1].size <= self.size:
            anchor = self._anchors.pop()
            left = self.declared.left(anchor.epoch, anchor.size)
            if left is not None:
                raise shorter(anchor, left.position, left.position)
            if anchor.epoch != self.declared.epoch or anchor.checkpoint.root != self.edge.root():
                raise differing(anchor)

    def finish(self) -> None:
        """Everything was taken: compare what is not complete, and what has to come out even.

        Raises:
            Tampered: HBK-710; HBK-713 an anchor was not reached.
        """
        for anchor in self._anchors:
            left = self.declared.left(anchor.epoch, anchor.size)
            raise shorter(anchor, self.size, left.position if left else None)
        self.statements.end()
        undeclared = self._missing.outside(self.declared.gone)
        if undeclared is not None:
            raise tampered(Kind.DELETED, "an entry is missing", undeclared)
        if self._loose:
            raise tampered(Kind.DELETED, "the last entry of a stream is missing", self._last_missing)

    def settle(self) -> None:
        """Compare the tiles above the leaves, once the root is known to be right; until then either may be wrong.

        Raises:
            Tampered: HBK-710.
        """
        for tile in self.edge.unfinished():
            if tile.level:
                self._compare(tile.level, tile.index, tile.data)
        if self._fault is not None:
            raise self._fault
