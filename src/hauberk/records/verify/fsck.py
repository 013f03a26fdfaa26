"""Everything in a store that follows from something else, compared with what it follows from; all that is wrong.

A verification stops at the first thing that does not fit, since nothing behind it can be believed. This goes on: tiles
of every level, frontier and head against the leaves, runs of statements, keys that were erased and are still there. It
says what can be made again. It does not look at the contents of entries; that is what a verification is for.
"""

from collections.abc import Iterator, Sequence

import msgspec

from hauberk.core.finding import Finding, Severity
from hauberk.core.ports import Head, Store, Tile
from hauberk.crypto.merkle import HASH_BYTES
from hauberk.crypto.note import decode_key
from hauberk.errors import RecordsError
from hauberk.records.heads import split_name
from hauberk.records.keys import ERASED, KEY
from hauberk.records.positions import Positions
from hauberk.records.tile_paths import WIDTH, hashes_of
from hauberk.records.verify.anchors import Named
from hauberk.records.verify.declared import STREAMS, claimed_gone
from hauberk.records.verify.edge import Edge
from hauberk.records.verify.hashing import LEAF, hash_each
from hauberk.records.verify.page import Page, Row
from hauberk.records.verify.statements import AT_ITS_WORD, Statements

REBUILT = "it follows from the entries: hauberk ledger fsck PATH --key KEY --repair"
VERIFY = "hauberk ledger verify tells what was done"
_PAGE = 1_000


class Derived(msgspec.Struct, frozen=True):
    """What follows from the leaves of a log.

    Args:
        findings: where the store has something else.
        tiles: those that are wrong or missing, as they should be.
        frontier: as it should be.
        agrees: whether the root is the one that the log signed; only then may anything be written.
    """

    findings: tuple[Finding, ...]
    tiles: tuple[Tile, ...]
    frontier: bytes
    agrees: bool


def found(rule: str, message: str, *, fix: str = "", severity: Severity = Severity.ERROR) -> Finding:
    """Return a finding of a check of a store."""
    return Finding(source="fsck", rule=rule, severity=severity, message=message, fix=fix)


def check_log(store: Store, log: str, key_text: str | None = None) -> Derived:
    """Compare what is derived of one log.

    Args:
        store: only read.
        log: its name there.
        key_text: its verifier key; without it the checkpoint is not verified, and nothing agrees.

    Raises:
        RecordsError: HBK-711 that is no key of this log; the store failed.
    """
    return _Check(store, log).run(None if key_text is None else _named(log, key_text))


def _named(log: str, key_text: str) -> Named:
    name, key = decode_key(key_text)
    if log not in {name, split_name(name)[0]}:
        raise RecordsError("HBK-711", "the key is of another log")
    return Named(log, key, None)


class _Check:
    def __init__(self, store: Store, log: str) -> None:
        self._store = store
        self._log = log
        self._found: list[Finding] = []
        self._edge = Edge()
        self._tiles: list[Tile] = []
        self._whole = True  # every leaf is there, or its hash is
        self._statements: Statements | None = Statements(AT_ITS_WORD)

    def _tell(self, rule: str, message: str, fix: str = VERIFY) -> None:
        self._found.append(found(rule, message, fix=fix))

    def run(self, named: Named | None) -> Derived:
        head = self._store.head(self._log)
        gone = claimed_gone(self._store, self._log)
        self._read(head.size, gone)
        if self._edge.size < head.size and self._whole:
            self._missing(head.size, gone)
        self._ended()
        for tile in self._edge.unfinished():
            self._compare(tile)
        agrees = self._head(head, named)
        behind = next(self._store.entries(self._log, after=head.size - 1, limit=1), None)
        if behind is not None:
            self._tell("entry-behind-the-end", f"entry {behind.position} is behind the end of the log at {head.size}")
        return Derived(tuple(self._found), tuple(self._tiles), self._edge.frontier().encode(), agrees)

    def _read(self, size: int, gone: Positions) -> None:
        """Take what is there, as far as it can be read."""
        try:
            for rows in _pages(self._store, self._log, size):
                if rows[0][0] > self._edge.size:
                    self._missing(rows[0][0], gone)
                self._take(Page(rows))
        except RecordsError:
            self._tell("unreadable", f"entries cannot be read from {self._edge.size} on")
            self._whole = False

    def _missing(self, upto: int, gone: Positions) -> None:
        """Take the hashes of entries that are not there from the tiles."""
        start = self._edge.size
        first = gone.lacking(start, upto)
        if first is not None:
            self._tell("entry-missing", f"entries {first} to {upto - 1} are missing, and no pruning on record says so")
        self._unstated()
        while self._edge.size < upto and self._whole:
            at, count = self._edge.size % WIDTH, min(self._edge.room, upto - self._edge.size)
            data = self._stored(0, self._edge.size // WIDTH)[at * HASH_BYTES : (at + count) * HASH_BYTES]
            if len(data) != count * HASH_BYTES:
                self._whole = False
            else:
                self._grow(hashes_of(data))

    def _take(self, page: Page) -> None:
        if not self._whole:
            return
        start = self._edge.size
        try:
            hashes = hash_each(page.leaves, LEAF)
        except TypeError:
            self._tell("unreadable", f"a leaf at or behind {start} is no bytes")
            self._whole = False
            return
        while hashes:
            room = self._edge.room
            self._grow(hashes[:room])
            hashes = hashes[room:]
        self._stated(page, start)

    def _stated(self, page: Page, start: int) -> None:
        """Follow the statements up to the first that does not hold."""
        if self._statements is None:
            return
        try:
            if len(page.leaves) > 1 and not STREAMS.isdisjoint(page.streams):
                for at, row in enumerate(page.rows):
                    self._stated(Page([row]), start + at)
                return
            self._statements.take(page, start)
            if page.streams[0] in STREAMS:
                self._statements.introduce(page.entry(0))
        except RecordsError as error:
            self._tell("statement", f"entry {error.context.get('position')}: {error.detail}")
            self._statements = None

    def _unstated(self) -> None:
        try:
            if self._statements is not None:
                self._statements.missing()
        except RecordsError as error:
            self._tell("statement", f"entry {error.context.get('position')}: {error.detail}")
            self._statements = None

    def _ended(self) -> None:
        try:
            if self._statements is not None:
                self._statements.end()
        except RecordsError as error:
            self._tell("statement", f"entry {error.context.get('position')}: {error.detail}")

    def _grow(self, hashes: list[bytes]) -> None:
        self._edge.extend(hashes)
        for tile in self._edge.finished():
            self._compare(tile)

    def _stored(self, level: int, index: int) -> bytes:
        try:
            data: object = self._store.tile(self._log, level, index)
        except RecordsError:
            return b""
        return data if isinstance(data, bytes) else b""

    def _compare(self, tile: Tile) -> None:
        stored = self._stored(tile.level, tile.index)
        if stored[: len(tile.data)] != tile.data:
            what = "differs from the leaves" if stored else "is missing"
            self._tell("tile", f"tile {tile.level}/{tile.index} {what}", REBUILT)
            self._tiles.append(tile)

    def _head(self, head: Head, named: Named | None) -> bool:
        """Compare the head, and tell whether the log signed this very tree."""
        if self._edge.size != head.size or not self._whole:
            self._tell("leaves", f"there are leaves up to {self._edge.size}, and the head has {head.size}")
            return False
        agrees = self._signed(head, named)
        if head.frontier != self._edge.frontier().encode():
            self._tell("frontier", "the frontier differs from the leaves", REBUILT)
        return agrees

    def _signed(self, head: Head, named: Named | None) -> bool:
        if named is None:
            return False
        try:
            signed, epoch = named.signed(head.checkpoint.decode("utf-8", "replace"))
        except RecordsError:
            self._tell("head", "the checkpoint is not signed by this key")
            return False
        if (signed.size, epoch) != (head.size, head.epoch):
            self._tell("head", "the head and its checkpoint differ in size or epoch")
            return False
        if signed.root != self._edge.root():
            self._tell("root", "the leaves do not lead to the signed root")
            return False
        return True


def _pages(store: Store, log: str, size: int) -> Iterator[list[Row]]:
    """Yield the entries below the head, in pages without a gap."""
    after = -1
    while page := list(store.entries(log, after=after, before=size, limit=_PAGE)):
        rows: list[Row] = []
        for entry in page:
            if rows and entry.position != rows[-1][0] + 1:
                yield rows
                rows = []
            rows.append(msgspec.structs.astuple(entry))
        yield rows
        after = page[-1].position


def check_keys(store: Store) -> Sequence[Finding]:
    """Return the keys of subjects that were destroyed, by a certificate, and are there all the same."""
    findings, after = [], b""
    while page := list(store.scan(ERASED, after=after, limit=_PAGE)):
        for row in page:
            if store.get(KEY, row.key) is not None:
                message = f"key {row.key.hex()} was destroyed, says its certificate, and is still there"
                findings.append(found("erased-key", message, fix="erase the subject again"))
        after = page[-1].key
    return findings
